// How long rtcr_publish() holds its caller, against a bare eventfd write that wakes a thread out of
// poll(), which is the least that handing work to another thread costs. Both alternate within one run,
// each when the thread to be woken sleeps; a real cmsd on loopback pulls meanwhile.
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include <rtcr/rtcr.h>

#include "base/assert.h"
#include "test/bench/bench.h"
#include "test/support/cmsd_process.h"

namespace cms::bench {
namespace {

constexpr const char* kThreadName = "bench-client";

// Whether a thread of this process sleeps, as the kernel says.
class ThreadState {
 public:
  explicit ThreadState(pid_t thread_id)
      : fd_(::open(("/proc/self/task/" + std::to_string(thread_id) + "/stat").c_str(),
                   O_RDONLY | O_CLOEXEC)) {
    CMS_ASSERT(fd_ >= 0);
  }
  ~ThreadState() { ::close(fd_); }
  ThreadState(const ThreadState&) = delete;
  ThreadState& operator=(const ThreadState&) = delete;

  bool sleeps() const {
    char text[512];
    const ssize_t got = ::pread(fd_, text, sizeof(text) - 1, 0);
    if (got <= 0) return false;
    text[got] = '\0';
    const char* end_of_name = std::strrchr(text, ')');
    return end_of_name != nullptr && end_of_name[2] == 'S';
  }
  // Until it sleeps; a thread that is busy for long is measured busy.
  void wait_until_asleep() const {
    for (const Stopwatch watch; !sleeps() && watch.seconds() < 0.002;) std::this_thread::yield();
  }

 private:
  int fd_;
};

pid_t thread_named(const std::string& name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string comm;
    std::getline(file, comm);
    if (comm == name) return static_cast<pid_t>(std::stol(task.path().filename()));
  }
  CMS_ASSERT(!"the client's thread has another name");
  return 0;
}

// A thread that does what a loop does for a publish and nothing else: poll, read, poll.
class BareWaker {
 public:
  BareWaker() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), thread_([this] { run(); }) {
    while (thread_id_ == 0) std::this_thread::yield();
  }
  ~BareWaker() {
    stopping_ = true;
    wake();
    thread_.join();
    ::close(fd_);
  }
  BareWaker(const BareWaker&) = delete;
  BareWaker& operator=(const BareWaker&) = delete;

  void wake() const {
    const std::uint64_t one = 1;
    CMS_ASSERT(::write(fd_, &one, sizeof(one)) == sizeof(one));
  }
  pid_t thread_id() const { return thread_id_; }

 private:
  void run() {
    thread_id_ = static_cast<pid_t>(::syscall(SYS_gettid));
    while (!stopping_) {
      pollfd item{fd_, POLLIN, 0};
      (void)::poll(&item, 1, -1);
      std::uint64_t count = 0;
      (void)!::read(fd_, &count, sizeof(count));
    }
  }

  int fd_;
  std::atomic<bool> stopping_{false};
  std::atomic<pid_t> thread_id_{0};
  std::thread thread_;
};

struct Case {
  rtcr_source source;
  std::uint64_t size_bytes;
  std::size_t count;
};

class PublishBench {
 public:
  explicit PublishBench(const std::string& cms) {
    rtcr_options options = rtcr_options_init();
    options.cms = cms.c_str();
    options.ecu_mac = "02:00:00:00:00:01";
    options.bulk_host = "127.0.0.1";
    options.thread_name = kThreadName;
    options.memory_budget_bytes = 8 * kGiB;  // The one in flight, the one that waits, the next.
    CMS_ASSERT(rtcr_open(&options, &client_) == RTCR_OK);
  }
  ~PublishBench() { rtcr_close(client_); }
  PublishBench(const PublishBench&) = delete;
  PublishBench& operator=(const PublishBench&) = delete;

  void run(const Case& one, Table& table) {
    const ThreadState client_thread(thread_named(kThreadName));
    const BareWaker bare;
    const ThreadState bare_thread(bare.thread_id());
    // Anonymous memory of its own for RTCR_SOURCE_MEMORY; published again and again, never written.
    void* memory = nullptr;
    if (one.source == RTCR_SOURCE_MEMORY) {
      memory = ::mmap(nullptr, one.size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      CMS_ASSERT(memory != MAP_FAILED);
      fill_random(memory, one.size_bytes, one.size_bytes);
    }
    const std::size_t warm_up = one.count / 10 + 1;
    Samples publish_us;
    Samples eventfd_us;
    std::uint64_t seq = 0;
    for (std::size_t i = 0; i < one.count + warm_up; ++i) {
      // Small ones are stored before the next; of large ones the next supersedes the one that waits.
      if (seq != 0 && one.size_bytes < kMiB) wait_stored(seq);
      rtcr_checkpoint checkpoint = checkpoint_of(one, memory);
      double published = 0;
      double written = 0;
      const auto publish = [&] {
        client_thread.wait_until_asleep();
        const Stopwatch watch;
        const int status = rtcr_publish(client_, &checkpoint, &seq);
        published = watch.seconds() * 1e6;
        CMS_ASSERT(status == RTCR_OK);
      };
      const auto write = [&] {
        bare_thread.wait_until_asleep();
        const Stopwatch watch;
        bare.wake();
        written = watch.seconds() * 1e6;
      };
      if (i % 2 == 0) {
        publish();
        write();
      } else {
        write();
        publish();
      }
      if (i < warm_up) continue;
      publish_us.add(published);
      eventfd_us.add(written);
    }
    wait_stored(seq);
    CMS_ASSERT(rtcr_withdraw(client_, kProgram, 60000) == RTCR_OK);  // Waits for the transfers to end, too.
    if (memory != nullptr) {
      while (released_ != lent_) std::this_thread::yield();
      ::munmap(memory, one.size_bytes);
    }
    table.add({one.source == RTCR_SOURCE_MEMORY ? "memory" : "alloc", size_text(one.size_bytes),
               static_cast<double>(one.count), publish_us.median(), publish_us.percentile(99),
               publish_us.max(), eventfd_us.median(), eventfd_us.percentile(99), eventfd_us.max(),
               publish_us.median() / eventfd_us.median(),
               publish_us.percentile(99) / eventfd_us.percentile(99)});
  }

 private:
  static constexpr std::uint64_t kProgram = 7;

  rtcr_checkpoint checkpoint_of(const Case& one, void* memory) {
    rtcr_checkpoint checkpoint = rtcr_checkpoint_init();
    checkpoint.source = one.source;
    checkpoint.program_id = kProgram;
    checkpoint.program_name = "bench";
    checkpoint.size_bytes = one.size_bytes;
    checkpoint.release_policy = RTCR_RELEASE_STORED;
    if (one.source == RTCR_SOURCE_ALLOC) {
      CMS_ASSERT(rtcr_alloc(client_, one.size_bytes, &memory) == RTCR_OK);
      std::memset(memory, 0x5a, one.size_bytes);
    } else {
      checkpoint.release = [](void* context, const void*, std::uint64_t) {
        static_cast<std::atomic<std::uint64_t>*>(context)->fetch_add(1, std::memory_order_relaxed);
      };
      checkpoint.release_context = &released_;
      ++lent_;
    }
    checkpoint.data = memory;
    return checkpoint;
  }
  void wait_stored(std::uint64_t seq) {
    const int status = rtcr_wait(client_, seq, RTCR_STORED, 120000);
    if (status == RTCR_OK) return;
    std::fprintf(stderr, "publish_bench: not stored: %s\n", rtcr_last_error());
    std::exit(1);
  }

  rtcr_client* client_ = nullptr;
  std::uint64_t lent_ = 0;  // How often memory was handed over, and how often it came back.
  std::atomic<std::uint64_t> released_{0};
};

int run(Options options) {
  begin(options);
  if (!options.tiny) touch_and_free(4 * kGiB);
  const test::TempDir dir;
  test::CmsdProcess cmsd(dir);
  if (!cmsd.process().running()) {
    std::fprintf(stderr, "publish_bench: cmsd did not start: %s\n", cmsd.log().c_str());
    return 1;
  }
  PublishBench bench(cmsd.endpoint());
  Table table("publish(): microseconds that the caller is held, against a bare eventfd write",
              {"source", "size", "count", "p50", "p99", "max", "eventfd p50", "eventfd p99", "eventfd max",
               "p50 ratio", "p99 ratio"});
  const std::uint64_t large = options.tiny ? 2 * kMiB : kGiB;
  const std::size_t many = options.tiny ? 20 : 2000;
  const std::size_t fewer = options.tiny ? 20 : 500;
  for (const Case& one :
       {Case{RTCR_SOURCE_MEMORY, 4 * kKiB, many}, Case{RTCR_SOURCE_ALLOC, 4 * kKiB, many},
        Case{RTCR_SOURCE_MEMORY, large, fewer}, Case{RTCR_SOURCE_ALLOC, large, options.tiny ? 5U : 40U}}) {
    bench.run(one, table);
  }
  finish(options, {table});
  return 0;
}

}  // namespace
}  // namespace cms::bench

int main(int argc, char** argv) {
  CLI::App app("How long rtcr_publish() holds its caller");
  cms::bench::Options options;
  cms::bench::add_options(app, options);
  CLI11_PARSE(app, argc, argv);
  return cms::bench::run(options);
}
