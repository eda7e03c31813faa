#ifndef RTCR_RTCR_H
#define RTCR_RTCR_H
/*
 * librtcr-client: hands checkpoints of programs over to the Checkpoint Management System (CMS).
 *
 * A publisher opens one client, publishes checkpoints, and learns by receipts how far each has come.
 * The client holds what was handed over on a thread of its own, announces it to every CMS of its
 * list, serves the bytes when a CMS pulls them, and lets go of them when they are safe.
 *
 * Structs   Begin with struct_size, the size that the caller was compiled with; make them with the
 *           rtcr_*_init() functions, which also set everything else to zero, and zero means "not
 *           given". Later versions only add fields at the end: an older caller goes on to work, and
 *           a newer caller gets RTCR_E_UNSUPPORTED only if it uses a field that this library lacks.
 * Threads   Every function may be called from any thread, several at once, on one client; but
 *           rtcr_close must be the last call on it. The client has one thread of its own, and
 *           ZeroMQ one more for its I/O; a target or a source of moves has more. All have all signals blocked.
 * Callbacks on_receipt, on_event, on_lease and on_metrics run on the client's thread; a release callback runs
 *           there, on ZeroMQ's thread, or in rtcr_close; those of a restore, move or stop run on threads of
 *           their own, made when they are first needed, or in rtcr_close. All but the latter must return
 *           soon. None may throw, or call anything of this header that blocks (rtcr_wait, rtcr_withdraw,
 *           rtcr_request_migration, rtcr_fetch_newest, rtcr_close answer RTCR_E_CALLBACK there).
 *           rtcr_publish and the functions that do not block are allowed.
 * Fork      A child must not use the client: every call answers RTCR_E_FORKED and changes nothing.
 *           Open another client in the child. The parent is not disturbed.
 * Signals   None is used, none is handled, no handler is installed. Functions that block are not
 *           ended by a signal. Nothing here is async-signal-safe.
 * Memory    rtcr_publish allocates a few hundred bytes; whatever fails for want of memory answers
 *           RTCR_E_NO_MEMORY and has changed nothing. Limits: 65536 checkpoints held, the memory
 *           budget, 65536 calls not yet taken by the client's thread.
 * Strings   UTF-8 without control characters; copied before the call returns.
 *
 * Every function that can fail returns an rtcr_status (0 is success); rtcr_last_error() then has the
 * details in words. Any of them may answer RTCR_E_INVALID_ARGUMENT (a null pointer, a struct_size
 * that no version had), RTCR_E_UNSUPPORTED, RTCR_E_FORKED, RTCR_E_NO_MEMORY and RTCR_E_INTERNAL; the
 * others are listed with the function.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define RTCR_API __attribute__((visibility("default")))
#else
#define RTCR_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define RTCR_VERSION_MAJOR 0
#define RTCR_VERSION_MINOR 1
#define RTCR_VERSION_PATCH 0

/* The version of the library that is linked, "0.1.0". Never fails. */
RTCR_API const char* rtcr_version(void);

/* What a call came to, and why a checkpoint was dropped. The numbers never change. */
typedef enum rtcr_status {
  RTCR_OK = 0,
  RTCR_E_INVALID_ARGUMENT = 1, /* The input is wrong; change it. */
  RTCR_E_NOT_FOUND = 2,        /* It does not exist (any more). */
  RTCR_E_ALREADY_EXISTS = 3,   /* It is taken; for example every bulk port. */
  RTCR_E_UNAVAILABLE = 4,      /* No CMS can be reached now; try again later. */
  RTCR_E_IO = 5,               /* A file or device failed. */
  RTCR_E_NO_SPACE = 6,         /* A store or file system is full. */
  RTCR_E_QUOTA = 7,            /* A quota is used up. */
  RTCR_E_CORRUPT = 8,          /* Bytes do not match their digest; do not use them. */
  RTCR_E_READ_ONLY = 9,        /* The store does not accept writes. */
  RTCR_E_PERMISSION = 10,      /* Not allowed to. */
  RTCR_E_FOREIGN = 11,         /* It belongs to somebody else. */
  RTCR_E_UNSUPPORTED = 12,     /* A newer format, protocol or struct than this library knows. */
  RTCR_E_LIMIT = 13,           /* A limit was reached; nothing was taken in. */
  RTCR_E_SUPERSEDED = 14,      /* A newer checkpoint of the program took its place. */
  RTCR_E_FENCED = 15,          /* The program has moved: this publisher is no longer its owner. */
  RTCR_E_SOURCE_CHANGED = 16,  /* The file or memory changed while it was held. */
  RTCR_E_TIMEOUT = 17,         /* It did not end in the time given. */
  RTCR_E_CANCELLED = 18,       /* The client was closed, or a callback of the caller gave up. */
  RTCR_E_PROTOCOL = 19,        /* A CMS sent what it must not. */
  RTCR_E_WITHDRAWN = 20,       /* The program was withdrawn or retired. */
  RTCR_E_PUBLISHER_GONE = 21,  /* The session that held the blob has ended. */
  RTCR_E_DROPPED = 100,        /* rtcr_wait: the checkpoint is lost; rtcr_last_error() says why. */
  RTCR_E_ENDED = 101,          /* rtcr_wait: it went well, but this level can no longer come. */
  RTCR_E_FORKED = 102,         /* The client belongs to the parent process. */
  RTCR_E_CALLBACK = 103,       /* This call would block, and a callback must not. */
  RTCR_E_NO_MEMORY = 104,      /* Out of memory; nothing was changed. */
  RTCR_E_INTERNAL = 105        /* The client's thread has failed; close the client. */
} rtcr_status;

/* A word or two for a status, for example "no space". Never fails; static storage. */
RTCR_API const char* rtcr_error_string(int status);
/* What was wrong in the last call on this thread that failed, in words: what, where, and what would
   be allowed. Never NULL; empty when no call has failed yet. Valid until the thread's next call. */
RTCR_API const char* rtcr_last_error(void);

/* How far a checkpoint has come. The first five rise; the last three end it. */
typedef enum rtcr_level {
  RTCR_ANNOUNCED = 0,  /* At least one CMS was told of it. */
  RTCR_PULLING = 1,    /* A CMS takes the bytes. */
  RTCR_STORED = 2,     /* Durable on the store: it survives the publisher and the CMS. */
  RTCR_REPLICATED = 3, /* Known to every live CMS of the list, at least two where two are named. */
  RTCR_VERIFIED = 4,   /* Read again from the store after STORED. */
  RTCR_SUPERSEDED = 5, /* A newer one of the program took its place. */
  RTCR_DROPPED = 6,    /* Given up; the receipt's code and reason say why. */
  RTCR_FENCED = 7      /* The program is somebody else's now: stop it. Nothing more is held of it. */
} rtcr_level;

/* "STORED". Never fails; static storage. */
RTCR_API const char* rtcr_level_string(int level);

#define RTCR_REASON_SIZE 516 /* With the ending zero. */

/* What the publisher is told of one of its checkpoints. */
typedef struct rtcr_receipt {
  uint32_t struct_size;
  uint32_t level; /* rtcr_level */
  uint64_t program_id;
  uint64_t incarnation; /* It is announced or stored under; 0: no CMS has assigned one yet. The session
                           may take a larger one later, and announce what it holds under that. */
  uint64_t seq;         /* As rtcr_publish gave it. */
  uint32_t code;        /* rtcr_status: why it was dropped or superseded. */
  /* 1: the last receipt of this checkpoint, whose bytes are no longer held. (But RTCR_FENCED comes also
     after the last one of the program's newest.) */
  uint32_t final;
  char reason[RTCR_REASON_SIZE];
} rtcr_receipt;

typedef enum rtcr_event_kind {
  RTCR_CMS_LIVE = 0,   /* A session with this CMS stands; text is its name. */
  RTCR_CMS_SILENT = 1, /* It does not answer; the client goes on trying. */
  RTCR_CMS_REFUSED = 2 /* It refuses the session; text says why. The client tries again. */
} rtcr_event_kind;

typedef struct rtcr_event {
  uint32_t struct_size;
  uint32_t kind;      /* rtcr_event_kind */
  uint32_t cms_index; /* Position in rtcr_options.cms. */
  uint32_t reserved;
  char text[RTCR_REASON_SIZE];
} rtcr_event;

typedef struct rtcr_client rtcr_client;

typedef void (*rtcr_receipt_fn)(void* context, const rtcr_receipt* receipt);
typedef void (*rtcr_event_fn)(void* context, const rtcr_event* event);

/* ---- Being a target: an RTCR that can restore programs of other ECUs, or its own after a loss.
 *
 * A CMS pulls the strings: it asks for metrics, then lets one target prepare the program, and when that
 * was written down on the store, go. A claim that was refused, discarded or overtaken is never run by
 * this client, whatever comes, and one that was told to go is told so once.
 *
 * Callbacks run on threads of the client, several restores at once but those of one restore one after
 * the other: prepare, then go or discard. They may take long (before it has said go, a CMS chooses another
 * target when it sees no progress for a minute), and may use rtcr_publish and what else does not block. */

/* One restore. All it points to lives until the callback returns; `user` is yours, kept from one callback
   of a restore to the next. */
typedef struct rtcr_restore {
  uint32_t struct_size;
  /* The blob, verified: a sealed memfd, or the file at `path`. Read it by pread or map it; it belongs to
     the client, which closes it after go or discard (duplicate it to keep it). */
  int32_t fd;
  uint64_t restore_id; /* Of this restore at this client; from 1. */
  /* Of the file, in rtcr_restore_handler.folder, under a hidden name; NULL: a memfd. go may give the file
     another name; else it is removed with the restore. Not synced. */
  const char* path;
  uint64_t size_bytes;
  const char* ecu_mac; /* This and the next three: whose checkpoint, and which. */
  uint64_t program_id;
  uint64_t incarnation;
  uint64_t seq;
  uint64_t claim_slot; /* Of the claim in the lineage's log. */
  /* What was published with it; lineage, and from go on owner_epoch, are those to publish with from now
     on. Copy it, set program_id and source, and publish it. */
  const struct rtcr_checkpoint* checkpoint;
  void* user;
} rtcr_restore;

/* Restores the program from the blob up to the point where it could run, and no further. Returns RTCR_OK,
   or an rtcr_status: this target refuses, for good; all that was begun has been undone then (no discard
   follows). `reason` has room for RTCR_REASON_SIZE bytes of text for people; it is empty. */
typedef int (*rtcr_prepare_fn)(void* context, rtcr_restore* restore, char* reason);
/* Lets it run, and says under which program_id, which no other program that runs on this ECU may have.
   RTCR_OK only when it runs for certain; anything else promises that it does not run and never will: then
   the CMS may restore it elsewhere. The checkpoints that are published under this program_id from now on
   belong to its lineage, by themselves; before go has returned, give lineage and owner_epoch. Publish the
   first one soon: until it is STORED, a loss goes back to the one that was restored. */
typedef int (*rtcr_go_fn)(void* context, rtcr_restore* restore, uint64_t* program_id, char* reason);
/* Drops what prepare has made. Also when the client is closed before go. */
typedef void (*rtcr_discard_fn)(void* context, rtcr_restore* restore);

/* What this ECU has free; filled in from /proc. Alter what you know better. */
typedef struct rtcr_metrics {
  uint32_t struct_size;
  uint32_t cpu_count;
  uint32_t cpu_load_permille; /* Of all its CPUs together, 0 to 1000. */
  uint32_t draining;          /* 1: choose others. */
  uint64_t ram_total_bytes;
  uint64_t ram_available_bytes;
} rtcr_metrics;
typedef void (*rtcr_metrics_fn)(void* context, rtcr_metrics* metrics);

typedef struct rtcr_format {
  const char* name; /* As rtcr_checkpoint.checkpoint_format. */
  uint32_t version_max;
  uint32_t reserved;
} rtcr_format;

/* Copied by rtcr_open. Required: prepare and go. */
typedef struct rtcr_restore_handler {
  uint32_t struct_size;
  uint32_t thread_count; /* How many callbacks run at once; 0: 4; at most 64. */
  rtcr_prepare_fn prepare;
  rtcr_go_fn go;
  rtcr_discard_fn discard;    /* Or NULL: there is nothing to drop. */
  rtcr_metrics_fn on_metrics; /* Or NULL. */
  void* context;              /* For all of them. */
  /* Where blobs are kept while they are restored: hidden files in this directory, readable by their owner
     only; NULL: memfds. The client's thread writes them. */
  const char* folder;
  /* Of blobs that are received and do not run yet; what does not fit is refused. 0: with memfds the memory
     budget, in a folder no limit. */
  uint64_t received_bytes_max;
  const char* arch;           /* NULL: as `uname -m` says. */
  const rtcr_format* formats; /* That prepare understands; format_count of them, at most 16. */
  const char* const* labels;  /* label_count of them, at most 16 of 64 bytes. */
  uint32_t format_count;
  uint32_t label_count;
} rtcr_restore_handler;

/* ---- Being a source of planned moves: an RTCR that can stop a program and let it go on.
 *
 * A program is moved while its ECU is well: for a balance of load, or because rtcr_request_migration or an
 * operator asks. A CMS says freeze: the program is stopped, its last checkpoint published, and it stays so
 * until one of two things comes. Either the receipt RTCR_FENCED: it runs elsewhere, kill it. Or thaw: the
 * move did not come about, it goes on. Neither comes by time: a program is frozen for as long as no CMS can
 * read on the store which of the two it is. To let it go on by oneself may make it run twice.
 *
 * Callbacks run on threads of the client, for several programs at once but those of one program one after the
 * other. They may take long (the program stands still, and a CMS may give the move up meanwhile: thaw
 * follows), and may use rtcr_publish and what else does not block. When the client is closed what is frozen
 * stays so, and the move goes on if its last checkpoint is STORED. */

/* One command of a move. Valid until the callback returns. */
typedef struct rtcr_move {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t program_id;
  uint64_t claim_slot; /* In the lineage's log: of the claim; at thaw of the record that ended it. */
  uint8_t lineage[16];
} rtcr_move;

/* Stops the program, publishes its last checkpoint by rtcr_publish, and gives its seq in `*last_seq`. That
   must be the newest of the program: what is published of it before thaw ends as RTCR_DROPPED with
   RTCR_E_PERMISSION. Returns RTCR_OK when it stands still for certain; or an rtcr_status: it runs on, and
   this move is given up. `reason` has room for RTCR_REASON_SIZE bytes of text for people; it is empty. Not
   called again for what is frozen, whoever asks. */
typedef int (*rtcr_freeze_fn)(void* context, const rtcr_move* move, uint64_t* last_seq, char* reason);
/* Lets it go on. Only after its freeze returned RTCR_OK; also when that gave a seq that was not the newest. */
typedef void (*rtcr_thaw_fn)(void* context, const rtcr_move* move);

/* Copied by rtcr_open. Required: freeze and thaw. */
typedef struct rtcr_move_handler {
  uint32_t struct_size;
  uint32_t thread_count; /* How many callbacks run at once; 0: 4; at most 64. */
  rtcr_freeze_fn freeze;
  rtcr_thaw_fn thaw;
  void* context; /* For both. */
} rtcr_move_handler;

/* ---- Being guarded: the ECU's run lease.
 *
 * A guarded session vouches for the programs of its ECU: when the ECU is lost they go on elsewhere without a person
 * who says so. For that nothing that is to be restored so may run on when nobody can reach the ECU. So the session
 * holds a lease, which every answer of a CMS to its heartbeat renews, and which ends by itself some seconds after the
 * last one was sent (the CMS says how many). Then stop is called for each program of which the checkpoints, or the log
 * on the store, say RTCR_ON_ISOLATION_STOP, and all of them must stand still within 1 s of the end. Those with
 * RTCR_ON_ISOLATION_KEEP run on, and wait for an operator when the ECU is lost.
 * A new session begins then by itself, under a larger incarnation, with everything that was held; the first at once,
 * then ever more seldom while leases live for less than a minute. When it has a lease, and a CMS has read that the
 * program still belongs to this ECU, resume is called; or the receipt RTCR_FENCED comes: it runs elsewhere, kill it.
 *
 * - At most one guarded session per ecu_mac; a second one is refused while the first is heard.
 * - Start no program with RTCR_ON_ISOLATION_STOP by yourself while the lease does not live.
 * - Publish what runs already, then call rtcr_programs_told. Of that, what has RTCR_ON_ISOLATION_STOP is stopped at
 *   once and goes on when a CMS has read that it still belongs to this ECU: it may have been restored elsewhere while
 *   this process, or the ECU, was not there. What you start later, within a lease, is not.
 * - Say rtcr_program_ended of what dies.
 * - rtcr_close stops the same programs, and waits for that: nobody holds a lease for them afterwards. */

/* Who stops the programs if this process does not, because it is stopped itself, or gone. Without one nothing of the
   ECU is restored by itself. The library enforces nothing: who states an enforcer here vouches for it, and a wrong word
   makes programs run twice. */
typedef enum rtcr_enforcer {
  RTCR_ENFORCER_NONE = 0,
  RTCR_ENFORCER_GUARD = 1, /* A process of its own: see rtcr_lease.enforce_at_ns. The programs die with it. */
  /* One that resets the whole host when it is not kicked: of the hardware, or softdog, which the kernel must be well
     for. Who states it kicks it, from a process that does nothing else,
     - only while its bite after this kick comes in time: now + its timeout <= the end + 0.9 s, where the end is
       rtcr_lease.enforce_at_ns, or if that is 0 rtcr_lease.ends_at_ns while that is to come (something may be started
       until then); and always when neither is there. Its timeout is what the driver says that it is: at most 4 s with
       a lease of 5 s;
     - never late: who was held up between the look at the clock and the kick must not kick (`rtcr ecu` has itself killed
       by a timer of the kernel at the last moment);
     and disarms it only when enforce_at_ns is 0 and this process ends in order. Killed, it must leave it armed. */
  RTCR_ENFORCER_WATCHDOG = 2
} rtcr_enforcer;

/* How the lease stands. Instants are of CLOCK_BOOTTIME, in ns. */
typedef struct rtcr_lease {
  uint32_t struct_size;
  uint32_t lives;
  uint64_t ends_at_ns; /* While it lives, unless it is renewed; else 0. */
  /* From then on what is to stop must stand still, unless this is told anew: half a second later the enforcer ends
     all programs, and this process. 0: nothing is to be enforced. It is earlier than ends_at_ns when it is the end of a
     former lease, after which not every stop has returned yet. */
  uint64_t enforce_at_ns;
  char reason[RTCR_REASON_SIZE]; /* Why it has ended; else empty. */
} rtcr_lease;

/* Stops the program where it stands, so that resume can let it go on; returns RTCR_OK when it stands still for
   certain (a signal that was sent is not yet that), also when there is no such program (any more). Or an rtcr_status: it may still run; it is called again after
   1 s. It must be quick (1 s from the end of the lease is for all programs together), and is not called twice for what
   stands still. A freeze of the same program may be running at that time, and goes on. What is published of a stopped
   program ends as RTCR_DROPPED with RTCR_E_PERMISSION. `reason` has room for RTCR_REASON_SIZE bytes of text for
   people; it is empty. */
typedef int (*rtcr_stop_fn)(void* context, uint64_t program_id, char* reason);
/* Lets it go on. Only after its stop returned RTCR_OK. */
typedef void (*rtcr_resume_fn)(void* context, uint64_t program_id);
/* Something of it has changed: about once a second while it is renewed. On the client's thread. */
typedef void (*rtcr_lease_fn)(void* context, const rtcr_lease* lease);

/* Copied by rtcr_open. Required: stop and resume. */
typedef struct rtcr_lease_handler {
  uint32_t struct_size;
  uint32_t thread_count; /* How many stops and resumes run at once; 0: 4; at most 64. */
  rtcr_stop_fn stop;
  rtcr_resume_fn resume;
  rtcr_lease_fn on_lease; /* Or NULL. */
  void* context;          /* For all of them. */
  /* Another text at each boot of what runs the programs, where that is not the kernel (a container that is thrown away
     with them); NULL: the kernel's boot id. */
  const char* boot_id;
  uint32_t enforcer; /* rtcr_enforcer */
  uint32_t reserved;
} rtcr_lease_handler;

#define RTCR_LOCK_MEMORY 1U /* mlock copies and allocations. */
#define RTCR_PIN_THREAD 2U  /* Run the client's threads on thread_cpu only. */

typedef struct rtcr_options {
  uint32_t struct_size;
  uint32_t flags;
  const char* cms;     /* Required: "tcp://HOST:PORT[,tcp://HOST2:PORT2]", at most 16. */
  const char* ecu_mac; /* Required: "02:00:00:00:00:01". */
  /* How much memory held checkpoints may take: copies, allocations, sealed memfds and memory handed
     over; files take none. 0: 256 MiB. */
  uint64_t memory_budget_bytes;
  const char* bulk_ports;     /* Where CMS instances pull from, first free one; NULL: "7600-7999". */
  const char* bulk_host;      /* Address to listen on; NULL: all. */
  const char* advertise_host; /* Where CMS instances reach us; NULL: where our messages come from. */
  const char* thread_name;    /* At most 15 bytes; NULL: "rtcr-client". */
  /* 1..99: SCHED_FIFO. 0: as the calling thread; an ordinary one becomes SCHED_BATCH, so that waking
     the client's thread does not take the core from the thread that publishes. */
  int32_t thread_priority;
  uint32_t thread_cpu;        /* With RTCR_PIN_THREAD. */
  rtcr_receipt_fn on_receipt; /* Or NULL. */
  void* receipt_context;
  rtcr_event_fn on_event; /* Or NULL. */
  void* event_context;
  const rtcr_restore_handler* restore; /* Given: this ECU is a target. */
  const rtcr_move_handler* move;       /* Given: programs can be moved from this ECU. */
  const rtcr_lease_handler* lease;     /* Given: the session is guarded. */
} rtcr_options;

/* Opens a client: checks the options, opens its sockets and starts its thread. Does not wait for any
   CMS. Blocks for milliseconds; host names are looked up later, by ZeroMQ.
   RTCR_E_UNSUPPORTED: also, lease is given and the kernel tells no boot id.
   RTCR_E_ALREADY_EXISTS: no bulk port of the range is free. RTCR_E_PERMISSION: thread_priority needs
   CAP_SYS_NICE or RLIMIT_RTPRIO. RTCR_E_LIMIT: out of threads or descriptors. */
RTCR_API int rtcr_open(const rtcr_options* options, rtcr_client** client);

/* Says goodbye to every CMS, ends the client's thread, releases all that is held (with a last receipt
   each) and frees the client. What was prepared is discarded, and a go that has begun is waited for. So is
   a freeze or thaw; what is frozen stays so. With a lease, what has RTCR_ON_ISOLATION_STOP is stopped.
   Blocks until that is done: at most a second, and as long as a callback takes. What is not STORED by then is lost: rtcr_wait first. NULL is allowed.
   RTCR_E_CALLBACK, RTCR_E_FORKED: nothing happened, the client lives on. */
RTCR_API int rtcr_close(rtcr_client* client);

typedef enum rtcr_source {
  /* data[0..size_bytes), sent from where it is: must not change or go until `release` was called.
     Without `release` it must live until the final receipt was given and the client was closed. */
  RTCR_SOURCE_MEMORY = 0,
  /* data[0..size_bytes) is copied before the call returns. */
  RTCR_SOURCE_COPY = 1,
  /* A regular file open for reading, from its beginning; the descriptor is duplicated, yours stays
     yours. It is read when a CMS pulls; if it changes before that has ended (size, mtime or ctime;
     so remove or rename it only after the final receipt), the checkpoint ends as RTCR_DROPPED with
     RTCR_E_SOURCE_CHANGED. A memfd sealed with F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_WRITE cannot
     change, and is sent without a copy. size_bytes is its size, or 0 to take it as it is. */
  RTCR_SOURCE_FD = 2,
  /* data[0..size_bytes) of what rtcr_alloc gave, from its beginning; it belongs to the client from
     now on and becomes read-only: a later write is a SIGSEGV. Sent without a copy. */
  RTCR_SOURCE_ALLOC = 3
} rtcr_source;

/* When the client may free a checkpoint: when every CMS has it, or the first. */
typedef enum rtcr_release { RTCR_RELEASE_REPLICATED = 0, RTCR_RELEASE_STORED = 1 } rtcr_release;
/* What an ECU that is cut off does with the program. Of a guarded session the strictest counts that was said of a program
   since it is there, and what the claim log says once a CMS has looked. An RTCR that begins anew does not say KEEP of what
   it had said STOP of until then: cut off at that moment it would run on, and elsewhere as well. */
typedef enum rtcr_on_isolation { RTCR_ON_ISOLATION_KEEP = 0, RTCR_ON_ISOLATION_STOP = 1 } rtcr_on_isolation;
/* What the CMS does with the program when its ECU is lost. */
typedef enum rtcr_on_loss { RTCR_ON_LOSS_ASK = 0, RTCR_ON_LOSS_RESTORE = 1 } rtcr_on_loss;

/* The memory is not used any more. `data` and `size_bytes` are those of the publish. */
typedef void (*rtcr_release_fn)(void* context, const void* data, uint64_t size_bytes);

/* One checkpoint: whose, where its bytes are, and what is known about it. All but program_id and the
   source is optional; names and labels have at most 400 bytes together. */
typedef struct rtcr_checkpoint {
  uint32_t struct_size;
  uint32_t source; /* rtcr_source */
  uint64_t program_id;
  const void* data;
  uint64_t size_bytes;     /* At most 16 TiB. 0 is a checkpoint without bytes (but see RTCR_SOURCE_FD). */
  rtcr_release_fn release; /* For RTCR_SOURCE_MEMORY. */
  void* release_context;
  int32_t fd;                /* For RTCR_SOURCE_FD. */
  uint32_t chunk_size_bytes; /* A power of two, 64 KiB to 4 MiB; 0: 1 MiB. */

  const char* program_name; /* At most 128 bytes, as arch, os and checkpoint_format. */
  uint64_t taken_at_us;     /* Wall clock, since 1970; 0: now. */
  uint64_t pause_us;        /* How long the program stood still for it. */
  /* All zero, with owner_epoch 0: those that go gave to the program_id; else the lineage of {ecu_mac,
     program_id}. See rtcr_new_lineage. */
  uint8_t lineage[16];
  uint64_t owner_epoch;

  /* What a target must offer to run it. */
  const char* arch;
  const char* os;
  const char* checkpoint_format;
  const char* const* labels; /* label_count: at most 16 of 64 bytes. "!NAME": only where no NAME is. */
  uint32_t label_count;
  uint32_t format_version;
  uint64_t ram_bytes;

  /* Real-time facts. */
  uint64_t period_us;
  uint64_t deadline_us;
  uint64_t wcet_us;
  int32_t priority;

  uint32_t release_policy; /* rtcr_release */
  uint32_t on_isolation;   /* rtcr_on_isolation */
  uint32_t on_loss;        /* rtcr_on_loss */

  /* Not 0: a real-time fact; the program can spare the least time of all. It is placed first; and of the ECUs that
     can take it, on one near the CMS (where its checkpoint need not cross the network), also if another has more
     to spare. Which are near, cmsd is told: --near-ecu. */
  uint32_t tight;
  uint32_t reserved; /* 0. */
} rtcr_checkpoint;

/* Hands a checkpoint over and gives it its seq (`seq` may be NULL). Never waits for the network, a
   disk or the client's thread; takes microseconds whatever the size, but for RTCR_SOURCE_COPY, which
   takes the time of the copy. What becomes of it is told by receipts, also that it did not fit into
   the memory budget (RTCR_DROPPED, RTCR_E_LIMIT). A newer checkpoint supersedes those of its program
   that no CMS has begun to pull.
   On an error nothing was taken: the memory, its release callback, the allocation stay the caller's.
   RTCR_E_INVALID_ARGUMENT: a field is out of its limits (named), the fd is no regular file open for
   reading or has another size, `data` is not from rtcr_alloc. RTCR_E_LIMIT: 65536 calls wait for the
   client's thread, descriptors ran out, or RTCR_LOCK_MEMORY could not lock. RTCR_E_IO: the fd cannot
   be looked at. */
RTCR_API int rtcr_publish(rtcr_client* client, const rtcr_checkpoint* checkpoint, uint64_t* seq);

/* Memory to write a checkpoint into and to publish with RTCR_SOURCE_ALLOC: zeroed, page-aligned,
   shared (a fork of the publisher costs it no copy-on-write). Takes two system calls, and locks the
   pages if RTCR_LOCK_MEMORY is set. Freed by rtcr_free, by being published, or by rtcr_close.
   RTCR_E_LIMIT: it would take copies and allocations beyond twice the memory budget (so that one can
   be written while another is held), or cannot be locked. */
RTCR_API int rtcr_alloc(rtcr_client* client, uint64_t size_bytes, void** data);
/* Frees an allocation that was not published. NULL is allowed. RTCR_E_INVALID_ARGUMENT: `data` is not
   an allocation of this client, or was published. */
RTCR_API int rtcr_free(rtcr_client* client, void* data);

/* A new lineage: the life of a program that shall have nothing to do with the checkpoints that were
   published under its program_id before. Random; publish all its checkpoints with it. */
RTCR_API int rtcr_new_lineage(uint8_t lineage[16]);

#define RTCR_FOREVER (-1)

/* Waits until the checkpoint has reached `level` (RTCR_ANNOUNCED to RTCR_VERIFIED) or a higher one.
   Blocks at most timeout_ms milliseconds (RTCR_FOREVER; 0 only looks). The last 65536 seqs of the
   client are remembered, so the answer does not depend on when one asks.
   RTCR_E_TIMEOUT: not yet. RTCR_E_SUPERSEDED, RTCR_E_DROPPED, RTCR_E_FENCED: it ended before.
   RTCR_E_ENDED: it was released after a lower level and this one can never come; for example
   REPLICATED with RTCR_RELEASE_STORED. RTCR_E_NOT_FOUND: no such seq was given, or long ago. */
RTCR_API int rtcr_wait(rtcr_client* client, uint64_t seq, int level, int64_t timeout_ms);

/* Receipts without a callback: poll the descriptor for POLLIN, then take receipts until
   RTCR_E_NOT_FOUND says that there is none at this moment. Do not read from it or close it; it
   lives as long as the client. Neither call blocks. The last 4096 receipts are kept: when they are
   not taken the oldest goes and is counted (rtcr_stats.receipts_lost_count). `receipt->struct_size`
   must be set. rtcr_poll_fd answers -1 when the client is NULL or belongs to the parent process. */
RTCR_API int rtcr_poll_fd(rtcr_client* client);
RTCR_API int rtcr_next_receipt(rtcr_client* client, rtcr_receipt* receipt);

typedef struct rtcr_stats {
  uint32_t struct_size;
  uint32_t cms_live_count;
  uint64_t incarnation;  /* 0: not assigned yet. */
  uint64_t served_bytes; /* Of all checkpoints together, each byte once. */
  uint64_t held_count;
  uint64_t held_memory_bytes;
  uint64_t receipts_lost_count;
} rtcr_stats;

/* Numbers of the client as of its last turn. Does not block. `stats->struct_size` must be set. */
RTCR_API int rtcr_get_stats(rtcr_client* client, rtcr_stats* stats);

/* The program has ended for good: its checkpoints are to go from the CMS and from here. Blocks until
   a CMS has done it, at most timeout_ms (or RTCR_FOREVER). While a CMS restores the program elsewhere
   (its ECU was told lost) it is not done: the end of that decides where the program lives.
   RTCR_E_TIMEOUT: no CMS has answered yet; it may or may not have been done: call again.
   RTCR_E_LIMIT: 1024 withdrawals wait. Others are the CMS's answer. */
RTCR_API int rtcr_withdraw(rtcr_client* client, uint64_t program_id, int64_t timeout_ms);

/* Asks for a planned move of a program of this ECU, to the ECU `to_ecu_mac` or (NULL) to whichever suits it
   best. The publisher of the program, on this client or another one, needs rtcr_options.move. Blocks until a
   CMS has answered, at most timeout_ms (or RTCR_FOREVER); one is asked at a time, and the next one when it is
   silent for 2 s or cannot say now.
   RTCR_OK: the move has begun; asked again while it goes on, the same. What becomes of it is told by freeze,
   thaw and the receipt RTCR_FENCED. RTCR_E_TIMEOUT: no CMS has answered; it may or may not have begun: ask
   again. RTCR_E_INVALID_ARGUMENT: `to_ecu_mac` is none. RTCR_E_LIMIT: 1024 requests wait. Others are the
   CMS's answer: why it does not move it. */
RTCR_API int rtcr_request_migration(rtcr_client* client, uint64_t program_id, const char* to_ecu_mac,
                                    int64_t timeout_ms);

/* Of a guarded session (rtcr_options.lease): all programs that this ECU runs, and was not told to restore, were
   published on this client before this call. A CMS that asks what runs here is answered from now on. Until then nothing
   that was stopped goes on, and nothing that has died meanwhile is restored. Does not block.
   RTCR_E_INVALID_ARGUMENT: it was opened without a lease. RTCR_E_LIMIT: as rtcr_publish. */
RTCR_API int rtcr_programs_told(rtcr_client* client);
/* The program has ended by itself: it runs here no more, and is restored if its on_loss says so, here or elsewhere. Do not
   start it again by yourself then. What is held of it goes on to be held. (One that has ended for good is withdrawn
   instead.) Does not block. Errors as rtcr_programs_told. */
RTCR_API int rtcr_program_ended(rtcr_client* client, uint64_t program_id);

typedef enum rtcr_target {
  RTCR_TARGET_MEMORY = 0,  /* buffer[0..capacity_bytes) */
  RTCR_TARGET_FD = 1,      /* Written in order from where the descriptor stands. */
  RTCR_TARGET_CALLBACK = 2 /* on_bytes, in order. */
} rtcr_target;

/* The next `size_bytes` bytes of a blob of `blob_size_bytes`; verified. On the thread that called
   rtcr_fetch_newest. Returns 0 to go on; anything else ends the fetch with RTCR_E_CANCELLED. */
typedef int (*rtcr_bytes_fn)(void* context, const void* data, uint64_t size_bytes, uint64_t offset_bytes,
                             uint64_t blob_size_bytes);

typedef struct rtcr_fetch {
  uint32_t struct_size;
  uint32_t target;     /* rtcr_target */
  const char* ecu_mac; /* NULL: that of the client. */
  uint64_t program_id;
  uint64_t incarnation; /* Of one exact checkpoint; 0: the newest. */
  uint64_t seq;
  void* buffer;
  uint64_t capacity_bytes;
  rtcr_bytes_fn on_bytes;
  void* bytes_context;
  int64_t timeout_ms; /* Without an answer or progress; 0: 5000; or RTCR_FOREVER. */
  int32_t fd;
  uint32_t reserved;
} rtcr_fetch;

typedef struct rtcr_fetched {
  uint32_t struct_size;
  uint32_t cms_index; /* Which CMS the last bytes came from. */
  uint64_t incarnation;
  uint64_t seq;
  uint64_t size_bytes;
  uint8_t digest[16]; /* XXH3-128 over the chunks' digests. */
} rtcr_fetched;

/* Gets the newest STORED checkpoint of a program (or an exact one) back from the first CMS of the
   list that answers; goes on with another when that one dies. Every chunk and the whole are checked
   against their digests. Blocks for the transfer. `fetched` may be NULL.
   Of a guarded client (rtcr_options.lease), the newest of its own program (ecu_mac NULL or its own) is claimed: with
   RTCR_OK the program is the RTCR's to start, here and nowhere else, and what is published of it goes on from there.
   It needs a session, and rtcr_options.target does not matter for it. RTCR_E_PERMISSION: the program was published here
   and has neither ended (rtcr_program_ended) nor been fenced. RTCR_E_ALREADY_EXISTS: another call waits for it, or it is being
   restored for another reason; RTCR_E_WITHDRAWN, RTCR_E_LIMIT: what the CMS says. On any error it was not claimed, or
   is given back: it can be asked for again.
   Only RTCR_OK makes the bytes a checkpoint: on an error throw away what has arrived.
   RTCR_E_NOT_FOUND: there is none. RTCR_E_FENCED: of the newest, the program goes on elsewhere by now: do
   not start it. RTCR_E_UNAVAILABLE: no CMS answered. RTCR_E_TIMEOUT: they answer but cannot give it now;
   it may be about to go on elsewhere: ask again. RTCR_E_LIMIT: larger than capacity_bytes; fetched->size_bytes says how
   large. RTCR_E_CORRUPT: damaged, three times over. RTCR_E_IO, RTCR_E_NO_SPACE: of the descriptor. */
RTCR_API int rtcr_fetch_newest(rtcr_client* client, const rtcr_fetch* fetch, rtcr_fetched* fetched);

/* Each sets struct_size and, to zero, everything else. */
static inline rtcr_options rtcr_options_init(void) {
  rtcr_options value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_checkpoint rtcr_checkpoint_init(void) {
  rtcr_checkpoint value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_restore_handler rtcr_restore_handler_init(void) {
  rtcr_restore_handler value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_move_handler rtcr_move_handler_init(void) {
  rtcr_move_handler value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_move rtcr_move_init(void) {
  rtcr_move value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_lease_handler rtcr_lease_handler_init(void) {
  rtcr_lease_handler value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_lease rtcr_lease_init(void) {
  rtcr_lease value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_restore rtcr_restore_init(void) {
  rtcr_restore value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_metrics rtcr_metrics_init(void) {
  rtcr_metrics value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_receipt rtcr_receipt_init(void) {
  rtcr_receipt value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_stats rtcr_stats_init(void) {
  rtcr_stats value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_fetch rtcr_fetch_init(void) {
  rtcr_fetch value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}
static inline rtcr_fetched rtcr_fetched_init(void) {
  rtcr_fetched value;
  memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}

#ifdef __cplusplus
}
#endif

#endif /* RTCR_RTCR_H */
