/* Publishes a small state as the checkpoint of program 7 and waits until it is durable.
   usage: publish CMS   (for example publish tcp://127.0.0.1:7400) */
#include <rtcr/rtcr.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char** argv) {
  rtcr_options options = rtcr_options_init();
  rtcr_client* client = NULL;
  rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
  void* state = NULL;
  uint64_t seq = 0;
  int status;

  if (argc != 2) {
    fprintf(stderr, "usage: %s CMS\n", argv[0]);
    return 2;
  }
  options.cms = argv[1];
  options.ecu_mac = "02:00:00:00:00:01";
  if (rtcr_open(&options, &client) != RTCR_OK) {
    fprintf(stderr, "open: %s\n", rtcr_last_error());
    return 1;
  }

  /* The state is written where it will be sent from: no copy is made. */
  status = rtcr_alloc(client, 4096, &state);
  if (status == RTCR_OK) {
    strcpy((char*)state, "the state of a program");
    checkpoint.source = RTCR_SOURCE_ALLOC;
    checkpoint.program_id = 7;
    checkpoint.program_name = "example";
    checkpoint.data = state;
    checkpoint.size_bytes = 4096;
    status = rtcr_publish(client, &checkpoint, &seq); /* Microseconds; the program goes on. */
  }
  if (status == RTCR_OK) status = rtcr_wait(client, seq, RTCR_STORED, 5000);
  if (status == RTCR_OK) {
    printf("checkpoint %llu is stored\n", (unsigned long long)seq);
  } else {
    fprintf(stderr, "%s: %s\n", rtcr_error_string(status), rtcr_last_error());
  }
  rtcr_close(client);
  return status == RTCR_OK ? 0 : 1;
}
