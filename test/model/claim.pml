/* Who runs a lineage: two CMS instances, the claim log between them, two ECUs.

   ECU 0 runs the program and owns the lineage by GENESIS. It may be lost and come back in a new session, its
   program may die, either ECU may be the target of a restore, be lost again before or after it has it, or
   refuse it. A CMS may crash and forget all, be suspected falsely, give up a claim, act on a head read long
   ago, and append a record that is linked late or never, without being told (append.pml: until it settles).
   Commands and answers come late, again and again, or not until later.

   Claims (assert): never two copies that run, none once the lineage was retired; and when nothing can happen
   any more the program runs where the log says, or the log says that it has ended. An ECU whose session is
   over runs nothing: the leases see to that, and are not in this model. */

#ifndef FAULTS
#define FAULTS 3 /* in all, of any kind; at most 4 */
#endif
#ifndef SLOTS
#define SLOTS (1 + 3 * FAULTS) /* the most that they can cost */
#endif

#include "log.inc"

#define HAS(mask, slot) ((mask >> (slot)) & 1)
#define FAULT faults < FAULTS

byte faults;
bool retired; /* ghost: the log says that the lineage has ended */

/* Appends of which the caller does not know what became of them, by life of a CMS: 1, 2; 3 after a crash. */
byte open_slot[4];
byte open_kind[4];
byte open_arg[4];
byte open_epoch[4];
bool ended[4]; /* that life is over */

/* ECUs. */
bool alive[2] = true;     /* its session and its lease live */
byte session[2] = 1;
byte over[2];             /* the newest session of it that is over: LOST, or a HELLO after another boot */
byte prepared[2];         /* restored, paused: the claim's slot, which stands for its uid */
byte running[2];          /* the slot by which its copy runs: an ACT's; GENESIS's */
int gone_to[2];           /* GO of a slot was sent to it, and may come at any time, any number of times */
int obeyed;               /* ACT slots, each of one ECU and session: */
int refused;              /* ... it never will run that one */
int acked;                /* ... it does, durably */
int failed;               /* the copy that ran by that slot died, its ECU lives */
int withdrawn;            /* ... has ended for good, and says so */

/* The slot by which the owner since `epoch` runs. */
#define RAN_BY(epoch) ((epoch) == 1 -> 1 : (epoch) - 1)
#define IS_LOST(owner) (over[ECU_OF(owner)] >= SESSION_OF(owner) || HAS(failed, RAN_BY(owner)))

#ifdef OWNER_NOT_COMPARED /* whose loss was reported: some owner's, once */
#define MAY_CLAIM(m) (IS_CLOSED(m) && (over[0] || over[1] || failed))
#elif defined(LOSS_IS_AN_EVENT)
#define MAY_CLAIM(m) ((kind[m] == GENESIS || kind[m] == DONE) && IS_LOST(epoch[m]))
#elif defined(CLAIM_ON_RETIRE)
#define MAY_CLAIM(m) ((IS_CLOSED(m) || kind[m] == RETIRE) && IS_LOST(epoch[m]))
#else
#define MAY_CLAIM(m) (IS_CLOSED(m) && IS_LOST(epoch[m]))
#endif

#ifdef CLAIM_ON_ACT
#define MAY_TAKE_OVER(m) ((kind[m] == CLAIM && arg[m] != me) || kind[m] == ACT)
#else
#define MAY_TAKE_OVER(m) (kind[m] == CLAIM && arg[m] != me)
#endif

#ifdef CLAIM_NOT_ADOPTED
#define IS_MINE(m) (kind[m] == CLAIM && arg[m] == me && won == m)
#else
#define IS_MINE(m) (kind[m] == CLAIM && arg[m] == me)
#endif

#ifdef ACT_ONLY_BY_CLAIMER
#define MAY_FINISH(m) (kind[m] == ACT && arg[m - 1] == me)
#else
#define MAY_FINISH(m) (kind[m] == ACT)
#endif

#define IS_PROVEN(m) (over[ECU_OF(m)] >= SESSION_OF(m) || HAS(refused, m))

#ifdef DONE_BEFORE_ACK
#define IS_ACKED(m) true
#else
#define IS_ACKED(m) HAS(acked, m)
#endif

/* An append can win only above the head. One that loses changes nothing but what its caller reads next. */
#define CAN_APPEND (m == head && m < SLOTS && open_slot[me] == 0)
inline append(k, a) {
  if
  :: put(m + 1, k, a, epoch[m]);
#ifdef CLAIM_NOT_ADOPTED
     won = m + 1;
#endif
     m = head
  :: FAULT -> /* no answer */
     faults++;
     open_slot[me] = m + 1;
     open_kind[me] = k;
     open_arg[me] = a;
     open_epoch[me] = epoch[m]
  fi
}

inline close_open(life) {
  open_slot[life] = 0;
  open_kind[life] = 0;
  open_arg[life] = 0;
  open_epoch[life] = 0
}

#define IS_OPEN(life) (open_slot[life] != 0 && kind[open_slot[life]] == NONE)
inline link_late(life) {
  put(open_slot[life], open_kind[life], open_arg[life], open_epoch[life]);
  retired = retired || kind[head] == RETIRE;
  close_open(life)
}

active proctype Store() {
end:
  do
  :: atomic { IS_OPEN(1) -> link_late(1) }
  :: atomic { IS_OPEN(2) -> link_late(2) }
  :: atomic { IS_OPEN(3) -> link_late(3) }
  :: atomic { ended[1] && open_slot[1] != 0 -> close_open(1) } /* never done */
  :: atomic { ended[2] && open_slot[2] != 0 -> close_open(2) }
  od
}

#define CAN_PREPARE(ecu) (alive[ecu] && running[ecu] == 0 && prepared[ecu] < m)

proctype Cms(byte me) {
  byte m = 1; /* the head as last read; all but appends may be done on one that is old */
#ifdef CLAIM_NOT_ADOPTED
  byte won;
#endif
end:
  do
  :: atomic { m != head -> m = head }
  :: atomic { open_slot[me] != 0 -> close_open(me) } /* settled */

  :: atomic { CAN_APPEND && MAY_CLAIM(m) -> append(CLAIM, me) }
  :: atomic { CAN_APPEND && MAY_TAKE_OVER(m) && kind[m] == CLAIM && ended[arg[m]] -> append(CLAIM, me) }
  :: atomic { CAN_APPEND && MAY_TAKE_OVER(m) && FAULT -> faults++; append(CLAIM, me) } /* false suspicion */
  :: atomic { CAN_APPEND && IS_MINE(m) && FAULT -> faults++; append(RELEASE, 0) }

  :: atomic { IS_MINE(m) && CAN_PREPARE(0) -> prepared[0] = m }
  :: atomic { IS_MINE(m) && CAN_PREPARE(1) -> prepared[1] = m }
#ifdef GO_UNDER_CLAIM
  :: atomic { IS_MINE(m) && prepared[0] == m && !HAS(gone_to[0], m) -> gone_to[0] = gone_to[0] | (1 << m) }
  :: atomic { IS_MINE(m) && prepared[1] == m && !HAS(gone_to[1], m) -> gone_to[1] = gone_to[1] | (1 << m) }
  :: atomic { CAN_APPEND && IS_MINE(m) && HAS(acked, m) && running[0] == m ->
       append(DONE, TARGET(0, session[0])) }
  :: atomic { CAN_APPEND && IS_MINE(m) && HAS(acked, m) && running[1] == m ->
       append(DONE, TARGET(1, session[1])) }
#else
  :: atomic { CAN_APPEND && IS_MINE(m) && prepared[0] == m -> append(ACT, TARGET(0, session[0])) }
  :: atomic { CAN_APPEND && IS_MINE(m) && prepared[1] == m -> append(ACT, TARGET(1, session[1])) }
#endif
  :: atomic { MAY_FINISH(m) && !HAS(gone_to[ECU_OF(m)], m) ->
       gone_to[ECU_OF(m)] = gone_to[ECU_OF(m)] | (1 << m) }
  :: atomic { CAN_APPEND && MAY_FINISH(m) && IS_ACKED(m) -> append(DONE, arg[m]) }
  :: atomic { CAN_APPEND && MAY_FINISH(m) && IS_PROVEN(m) -> append(ABORT, 0) }
#ifdef ABORT_WITHOUT_PROOF
  :: atomic { CAN_APPEND && MAY_FINISH(m) && FAULT -> faults++; append(ABORT, 0) } /* it takes too long */
#endif

  :: atomic { CAN_APPEND && IS_CLOSED(m) && HAS(withdrawn, RAN_BY(epoch[m])) ->
       append(RETIRE, 0);
       retired = retired || kind[head] == RETIRE }

  :: atomic { me != 3 && !ended[1] && !ended[2] && FAULT -> /* crash; it starts again, knowing nothing */
       faults++;
       ended[me] = true;
       me = 3;
       m = 1 }
  od
}

#ifdef GO_UNDER_CLAIM
#define IS_FOR(x, a) true
#define PREPARED_FOR(a) (a)
#else
#define IS_FOR(x, a) (ECU_OF(a) == x && SESSION_OF(a) == session[x])
#define PREPARED_FOR(a) ((a) - 1) /* ACT stands right above its CLAIM */
#endif
#ifdef GO_NOT_COMPARED /* nor what it has refused before */
#define IS_PREPARED(x, a) (prepared[x] != 0)
#define GO_HAS_COME(x, a) (HAS(gone_to[x], a) && alive[x] && !HAS(obeyed, a))
#else
#define IS_PREPARED(x, a) (prepared[x] == PREPARED_FOR(a))
#define GO_HAS_COME(x, a) \
  (HAS(gone_to[x], a) && alive[x] && IS_FOR(x, a) && !HAS(obeyed, a) && !HAS(refused, a))
#endif

inline obey(x, a) {
  assert(running[0] == 0 && running[1] == 0);
  assert(!retired);
  running[x] = a;
  prepared[x] = 0;
  obeyed = obeyed | (1 << a)
}

inline refuse(x, a) {
  if
  :: prepared[x] == PREPARED_FOR(a) -> prepared[x] = 0
  :: else
  fi;
  refused = refused | (1 << a)
}

#define GO(x, a) \
  :: atomic { GO_HAS_COME(x, a) && IS_PREPARED(x, a) -> obey(x, a) } \
  :: atomic { GO_HAS_COME(x, a) && !IS_PREPARED(x, a) -> refuse(x, a) } \
  :: atomic { GO_HAS_COME(x, a) && FAULT -> faults++; refuse(x, a) }

proctype Ecu(byte x) {
end:
  do
#ifdef GO_UNDER_CLAIM
  GO(x, 2)
#endif
  GO(x, 3)
  GO(x, 4)
  GO(x, 5)
  GO(x, 6)
  GO(x, 7)
  GO(x, 8)
  GO(x, 9)
#if FAULTS > 3
  GO(x, 10)
  GO(x, 11)
  GO(x, 12)
#endif
  :: atomic { running[x] != 0 && !HAS(acked, running[x]) -> acked = acked | (1 << running[x]) }
  :: atomic { running[x] != 0 && HAS(acked, running[x]) && FAULT ->
       faults++;
       failed = failed | (1 << running[x]);
       running[x] = 0 }
  :: atomic { running[x] != 0 && HAS(acked, running[x]) && FAULT ->
       faults++;
       withdrawn = withdrawn | (1 << running[x]);
       running[x] = 0 }
  :: atomic { alive[x] && FAULT ->
       faults++;
       alive[x] = false;
       over[x] = session[x];
       running[x] = 0;
       prepared[x] = 0 }
  :: atomic { !alive[x] -> session[x]++; alive[x] = true }
  od
}

active proctype Watch() {
end:
  timeout ->
    assert(head < SLOTS || kind[head] == DONE || kind[head] == RETIRE); /* SLOTS is no limit */
    assert(kind[head] == RETIRE ||
           ((kind[head] == GENESIS || kind[head] == DONE) && running[ECU_OF(head)] == RAN_BY(head)))
}

init {
  atomic {
    put(1, GENESIS, TARGET(0, 1), 1);
    running[0] = 1;
    acked = 2; /* of slot 1 */
    run Ecu(0);
    run Ecu(1);
    run Cms(1);
    run Cms(2)
  }
}
