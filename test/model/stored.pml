/* What of a lineage can be restored, when STORED may be said, and what may be removed.

   One lineage whose owner is lost, restored, publishes, and may be lost again before or after it has; the
   writers of its checkpoints, each of which may pause anywhere; a claimer, which may be taken over by another
   one at any time; a remover, which may pause anywhere. The host of the store may crash: a name that was
   not synced is kept or lost, a removal may be undone. One stored checkpoint may be found damaged.
   That claims are won by one, and copies run one at a time, is claim.pml's.

   Claims (assert): what is restored is never older than what was said STORED, nor what was told FENCED;
   nothing is said STORED that the lineage does not go on from; from the first STORED on a good and synced
   state is there to restore, at every moment; when nothing can happen any more, every writer has had its
   answer and a lost program runs again. */

#ifndef FAULTS
#define FAULTS 2 /* in all, of any kind */
#endif
#ifndef BLOBS
#define BLOBS 4 /* at most 5 */
#endif
#ifndef SLOTS
#define SLOTS (1 + 3 * FAULTS) /* the most that they can cost */
#endif

#include "log.inc" /* ACT and DONE name a blob in arg: what is restored, and so the base */

#define FAULT faults < FAULTS

/* A blob on its way. */
#define PULLED 1   /* in a private place of the store */
#define NAMED 2    /* under its name, which a crash may take away */
#define SYNCED 3
#define REMOVED 4  /* a crash may bring it back */
#define VANISHED 5
/* What its publisher was told. */
#define STORED 1
#define FENCED 2

byte faults;
byte blobs;                   /* published so far; the later, the higher */
byte state[6];
byte said[6];
bool looked[6];       /* its writer has seen that it may say STORED, and will */
byte blob_epoch[6];
byte value[6];        /* of the program's state in it */
bool bad[6];          /* damaged: whoever reads it finds out */

bool runs = true;             /* the one copy */
byte value_now;               /* of its state */
byte knows_epoch = 1;         /* of its owner; 0: not told yet */
bool lost;                    /* the owner of the newest epoch */
bool asked;                   /* somebody asked for a restore, and has not been answered */

/* Ghosts: the newest of what was said STORED; and by epoch, one more than the state from which the next
   owner went on (0: there is none). */
byte said_epoch;
byte said_value;
byte cut[SLOTS + 2];
bool given_up[6];             /* by an operator who wanted an older one */

#define IS_THERE(b) (state[b] == NAMED || state[b] == SYNCED)
#define IS_GOOD(b) (state[b] == SYNCED && !bad[b])
#define NOT_OLDER(b) \
  (blob_epoch[b] > said_epoch || (blob_epoch[b] == said_epoch && value[b] >= said_value))

#define BASE_OF(e) (kind[e] == DONE -> arg[e] : 0)

#define EACH(test) (test(1) || test(2) || test(3) || test(4) || test(5))

/* A good and synced state is there, as a claimer would find it. */
byte i;
bool found;
inline check_restorable() {
  found = (BASE_OF(epoch[head]) != 0 && IS_GOOD(BASE_OF(epoch[head])));
  i = 1;
  do
  :: i <= blobs -> found = found || (blob_epoch[i] == epoch[head] && IS_GOOD(i)); i++
  :: else -> break
  od;
  assert(found || said_value == 0);
  i = 0; found = false
}

#define IS_ANSWERED(b) (b > blobs || said[b] != 0 || state[b] == VANISHED)
/* At most two are on their way at a time. */
#define MAY_PUBLISH (blobs < 2 || IS_ANSWERED(blobs - 1))

active proctype Owner() {
end:
  do
  :: atomic { runs && knows_epoch != 0 && blobs < BLOBS && MAY_PUBLISH ->
       blobs++;
       value_now++;
       blob_epoch[blobs] = knows_epoch;
       value[blobs] = value_now;
       state[blobs] = PULLED }
  :: atomic { runs && knows_epoch == 0 && kind[head] != ACT -> knows_epoch = epoch[head] }
  :: atomic { runs && kind[head] != ACT && FAULT ->
       faults++;
       runs = false; lost = true;
       knows_epoch = 0; value_now = 0 }
  :: atomic { !asked && runs && FAULT -> faults++; asked = true }
  od
}

/* The writer's LOOKUP of the slot above the head that it knows, which is at least its owner's. */
#define NOTHING_ABOVE(b) (kind[blob_epoch[b] + 1] == NONE)
/* There is something: what it reads in the log then. */
#define CLAIM_ENDED(b) (IS_CLOSED(head) && epoch[head] == blob_epoch[b])
#define IS_BASE(b) (epoch[head] != blob_epoch[b] && BASE_OF(epoch[head]) == b)
#define IS_OVER(b) (epoch[head] > blob_epoch[b] && !IS_BASE(b))

#if defined(STORED_UNDER_CLAIM)
#define MAY_SAY_STORED(b) (NOTHING_ABOVE(b) || epoch[head] == blob_epoch[b] || IS_BASE(b))
#else
#define MAY_SAY_STORED(b) (NOTHING_ABOVE(b) || CLAIM_ENDED(b) || IS_BASE(b))
#endif

inline say_stored(b) {
  assert(given_up[b] || cut[blob_epoch[b]] == 0 || value[b] < cut[blob_epoch[b]]);
  said[b] = STORED;
  looked[b] = false;
  if
  :: !bad[b] && !given_up[b] && NOT_OLDER(b) ->
       said_epoch = blob_epoch[b];
       said_value = value[b]
  :: else
  fi;
  check_restorable()
}

#if defined(LOOKUP_FIRST)
#define MAY_NAME(b) (looked[b] != 0 || IS_OVER(b))
#define MAY_LOOK(b) (state[b] == PULLED)
#else
#define MAY_NAME(b) true
#define MAY_LOOK(b) WAS_SYNCED(b)
#endif
#if defined(STORED_BEFORE_SYNC)
#define WAS_SYNCED(b) (state[b] == NAMED || state[b] == SYNCED || state[b] == REMOVED)
#else
#define WAS_SYNCED(b) (state[b] == SYNCED || state[b] == REMOVED)
#endif

proctype Writer(byte b) {
end:
  do
  :: atomic { state[b] == PULLED && MAY_NAME(b) -> state[b] = NAMED }
  :: atomic { state[b] == NAMED -> state[b] = SYNCED }
#ifdef STORED_WITHOUT_LOOKUP
  :: atomic { WAS_SYNCED(b) && said[b] == 0 -> say_stored(b) }
#else
  :: atomic { MAY_LOOK(b) && said[b] == 0 && !looked[b] && MAY_SAY_STORED(b) -> looked[b] = true }
  :: atomic { WAS_SYNCED(b) && looked[b] -> say_stored(b) }
  :: atomic { WAS_SYNCED(b) && said[b] == 0 && !looked[b] && IS_OVER(b) -> said[b] = FENCED }
#endif
  od
}

/* Restorable: the newest good one of the owner's epoch, by its name; while there is none, the base. */
#ifdef ANY_EPOCH
#define IS_CANDIDATE(b) (IS_THERE(b) && !bad[b])
#else
#define IS_CANDIDATE(b) (IS_THERE(b) && !bad[b] && blob_epoch[b] == epoch[head])
#endif
inline choose() {
  pick = BASE_OF(epoch[head]);
  i = 1;
  do
  :: i <= blobs ->
       if
       :: IS_CANDIDATE(i) && (blob_epoch[i] != blob_epoch[pick] || value[i] > value[pick]) -> pick = i
       :: else
       fi;
       i++
  :: else -> break
  od;
  i = 0
}

/* An operator wants an older one. A remover may have chosen it before the claim and do its work after ACT:
   so the claimer gives it a new name first, which no earlier listing has. */
#define IS_OLDER(b) \
  (said[b] == STORED && IS_GOOD(b) && blob_epoch[b] == epoch[head] && value[b] < value[pick])
#ifdef OLDER_IN_PLACE
#define TAKE(b) pick = b
#else
#define TAKE(b) \
       blobs++; \
       blob_epoch[blobs] = blob_epoch[b]; \
       value[blobs] = value[b]; \
       said[blobs] = STORED; \
       state[blobs] = NAMED; \
       pick = blobs
#endif
inline give_up() {
  said_epoch = blob_epoch[pick];
  said_value = value[pick];
  i = 1;
  do
  :: i <= blobs -> given_up[i] = given_up[i] || (blob_epoch[i] == said_epoch && value[i] > said_value); i++
  :: else -> break
  od;
  i = 0
}
#define TAKE_OLDER(b) \
  :: atomic { kind[head] == CLAIM && listed && !older && pick != 0 && IS_OLDER(b) && blobs < BLOBS && \
              FAULT -> \
       faults++; \
       TAKE(b); \
       older = true }

#define HAS_STATE (EACH(IS_CANDIDATE) || BASE_OF(epoch[head]) != 0)

active proctype Claimer() {
  byte pick;   /* what is to be restored */
  bool listed;
  bool older;  /* an operator wants it, and gives up what is newer */
end:
  do
#ifdef LIST_BEFORE_CLAIM
  :: atomic { IS_CLOSED(head) && lost && !listed && HAS_STATE ->
       choose();
       listed = true }
  :: atomic { IS_CLOSED(head) && lost && listed -> put(head + 1, CLAIM, 0, epoch[head]) }
#else
  :: atomic { IS_CLOSED(head) && (asked || (lost && HAS_STATE)) ->
       put(head + 1, CLAIM, 0, epoch[head]) }
  :: atomic { kind[head] == CLAIM && lost && !listed -> choose(); listed = true }
#endif
  :: atomic { kind[head] == CLAIM && listed && FAULT -> /* taken over */
       faults++;
       pick = 0; listed = false; older = false;
       put(head + 1, CLAIM, 0, epoch[head]) }
  :: atomic { kind[head] == CLAIM && asked -> /* the owner runs on, or the loss comes to a claim of its own */
       asked = false; pick = 0; listed = false; older = false;
       put(head + 1, RELEASE, 0, epoch[head]) }
  :: atomic { kind[head] == CLAIM && listed && pick == 0 && !asked -> /* there never was a state */
       assert(said_value == 0);
       listed = false;
       put(head + 1, RELEASE, 0, epoch[head]) }
#ifdef ACT_BEFORE_SYNC
  :: atomic { kind[head] == CLAIM && listed && pick != 0 && IS_THERE(pick) ->
       put(head + 1, ACT, pick, epoch[head]) }
#else
  :: atomic { kind[head] == CLAIM && listed && pick != 0 && state[pick] == NAMED -> state[pick] = SYNCED }
  :: atomic { kind[head] == CLAIM && listed && pick != 0 && state[pick] == SYNCED && !bad[pick] ->
       put(head + 1, ACT, pick, epoch[head]) }
#endif
  TAKE_OLDER(1)
  TAKE_OLDER(2)
#if BLOBS > 4
  TAKE_OLDER(3)
#endif
  :: atomic { kind[head] == CLAIM && listed && pick != 0 && (!IS_THERE(pick) || bad[pick]) ->
       pick = 0; listed = false; older = false } /* gone or damaged: list once more */
  :: atomic { kind[head] == ACT && lost -> /* GO; the ECU has had the bytes since before ACT */
       assert(!runs);
       if
       :: older -> give_up()
       :: else
       fi;
       assert(NOT_OLDER(arg[head]) && said[arg[head]] != FENCED);
       runs = true;
       lost = false;
       value_now = value[arg[head]];
       cut[epoch[head]] = value_now + 1 }
  :: atomic { kind[head] == ACT && !lost ->
       put(head + 1, DONE, arg[head], 0);
       pick = 0; listed = false; older = false;
       check_restorable() }
  :: atomic { kind[head] == ACT && FAULT -> /* the target is lost */
       faults++;
       runs = false; lost = true; value_now = 0;
       cut[epoch[head]] = 0;
       pick = 0; listed = false; older = false;
       put(head + 1, ABORT, 0, epoch[head]) }
  od
}

/* The remover lists, then reads the head, then removes one; it may pause in between for any time. A listing
   is a bit for each STORED one. */
#define HAS(mask, b) ((mask >> (b)) & 1)
#ifdef BASE_GOES_WHEN_NAMED
#define COUNTS(b) IS_THERE(b)
#else
#define COUNTS(b) (IS_THERE(b) && said[b] == STORED)
#endif
#define LISTING (COUNTS(1) << 1 | COUNTS(2) << 2 | COUNTS(3) << 3 | COUNTS(4) << 4 | COUNTS(5) << 5)

#define IS_NEWER(c, b, list) (value[c] > value[b] && HAS(list, c) && blob_epoch[c] == blob_epoch[b])
#define NEWER(b, list) \
  (IS_NEWER(1, b, list) + IS_NEWER(2, b, list) + IS_NEWER(3, b, list) + IS_NEWER(4, b, list) + \
   IS_NEWER(5, b, list))
#define IS_OF(c, e, list) (HAS(list, c) && blob_epoch[c] == e)
#define ANY_OF(e, list) \
  (IS_OF(1, e, list) || IS_OF(2, e, list) || IS_OF(3, e, list) || IS_OF(4, e, list) || IS_OF(5, e, list))

#ifdef KEEP_ONE
#define KEPT 1
#else
#define KEPT 2
#endif
#ifdef BASE_NOT_KEPT
#define IS_KEPT_BASE(b, e, list) false
#else
#define IS_KEPT_BASE(b, e, list) (b == BASE_OF(e) && !ANY_OF(e, list))
#endif
#define MAY_GO(b, e, list) \
  (IS_THERE(b) && ((blob_epoch[b] == e && NEWER(b, list) >= KEPT) || \
                   (blob_epoch[b] < e && !IS_KEPT_BASE(b, e, list))))
#ifdef HEAD_NOT_READ
#define HEAD_ALLOWS true
#else
#define HEAD_ALLOWS IS_CLOSED(head)
#endif

#define LIST_FOR(b) :: atomic { x == 0 && MAY_GO(b, epoch[head], LISTING) -> x = b; list = LISTING }

active proctype Remover() {
  byte x;    /* what may go, it seems; 0: nothing */
  byte list;
  byte e;    /* the epoch, once the head was read */
end:
  do
  LIST_FOR(1)
  LIST_FOR(2)
  LIST_FOR(3)
#if BLOBS > 3
  LIST_FOR(4)
#endif
#if BLOBS > 4
  LIST_FOR(5)
#endif
  :: atomic { x != 0 && e == 0 && HEAD_ALLOWS -> e = epoch[head] }
  :: atomic { e != 0 ->
       if
       :: MAY_GO(x, e, list) -> state[x] = REMOVED
       :: else
       fi;
       x = 0; list = 0; e = 0;
       check_restorable() }
  od
}

#define CRASH_BLOB(b) \
  if \
  :: state[b] == NAMED -> state[b] = VANISHED \
  :: state[b] == NAMED || state[b] == REMOVED -> state[b] = SYNCED \
  :: state[b] != NAMED \
  fi

/* One is damaged, of several STORED ones of the owner. The damage of its only one, or of what an ACT or a
   DONE names, is the loss of a state that no rule here prevents. */
#define IS_BAD(b) bad[b]
#define IS_SPARE(c, b) (c != b && said[c] == STORED && IS_GOOD(c) && blob_epoch[c] == blob_epoch[b])
#define HAS_SPARE(b) (IS_SPARE(1, b) || IS_SPARE(2, b) || IS_SPARE(3, b) || IS_SPARE(4, b) || IS_SPARE(5, b))
#define DAMAGE(b) \
  :: atomic { said[b] == STORED && IS_GOOD(b) && HAS_SPARE(b) && blob_epoch[b] == epoch[head] && \
              kind[head] != ACT && !EACH(IS_BAD) && FAULT -> \
       faults++; \
       bad[b] = true; \
       lower_said(); \
       check_restorable() }

/* The ghost without the damaged one. */
inline lower_said() {
  said_value = 0;
  i = 1;
  do
  :: i <= blobs ->
       if
       :: said[i] == STORED && IS_GOOD(i) && blob_epoch[i] == said_epoch && !given_up[i] &&
            value[i] > said_value ->
            said_value = value[i]
       :: else
       fi;
       i++
  :: else -> break
  od;
  i = 0
}

#define IS_UNSYNCED(b) (state[b] == NAMED || state[b] == REMOVED)

active proctype Disk() {
end:
  do
  :: atomic { EACH(IS_UNSYNCED) && FAULT ->
       faults++;
       CRASH_BLOB(1);
       CRASH_BLOB(2);
       CRASH_BLOB(3);
       CRASH_BLOB(4);
#if BLOBS > 4
       CRASH_BLOB(5);
#endif
       check_restorable() }
  DAMAGE(1)
  DAMAGE(2)
  DAMAGE(3)
#if BLOBS > 3
  DAMAGE(4)
#endif
#if BLOBS > 4
  DAMAGE(5)
#endif
  od
}

active proctype Watch() {
end:
  timeout ->
    assert(head < SLOTS || IS_CLOSED(head)); /* SLOTS is no limit */
    assert(IS_CLOSED(head) && (runs || (said_value == 0 && !EACH(IS_CANDIDATE))));
    assert(IS_ANSWERED(1) && IS_ANSWERED(2) && IS_ANSWERED(3) && IS_ANSWERED(4) && IS_ANSWERED(5))
}

init {
  atomic {
    put(1, GENESIS, 0, 1);
    run Writer(1);
    run Writer(2);
    run Writer(3);
#if BLOBS > 3
    run Writer(4);
#endif
#if BLOBS > 4
    run Writer(5)
#endif
  }
}
