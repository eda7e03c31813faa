/* Planned moves: the source is frozen, not lost, and must go on when the move does not come about.

   Two CMS instances, the claim log, a source that owns the lineage by GENESIS, a target. A move is asked for
   up to MOVES times. A CMS may act on a head read long ago, be suspected falsely and taken over, or give up;
   the target may refuse or be lost. FREEZE, THAW, GO and FENCED come at any later time, again and again; what
   the source says of itself (heartbeats) is read at any later time.

   Claims (assert): never two copies that run; the target goes on from the source's last state; and when
   nothing can happen any more, one of the two runs, nothing is frozen, and no claim is open. */

#ifndef FAULTS
#define FAULTS 2 /* in all, of any kind; at most 3 */
#endif
#ifndef MOVES
#define MOVES 2 /* at most 2 */
#endif
#ifndef SLOTS
#define SLOTS (1 + 3 * MOVES + FAULTS) /* the most that they can cost */
#endif

#include "log.inc"

#define HAS(mask, slot) ((mask >> (slot)) & 1)
#define FAULT faults < FAULTS

byte faults;
byte moves;
bool wanted; /* a move, and no record has answered it yet */

/* The source. */
bool source_runs = true;
byte frozen_for;      /* a claim's slot; 0: not frozen */
byte thawed_above;    /* the highest slot that it was thawed by: older FREEZEs are over */
byte state_now;       /* of its program; the last, while it is frozen */
byte newest;          /* what the store has of it, synced */
int freeze_sent;      /* bits by slot, as for all commands below */
int thaw_sent;
bool fenced_sent;

/* The target. Which GO it may obey, and when, is claim.pml's. */
bool target_runs;
bool target_lost;
int go_sent;
int refused;
int acked;

#define CAN_APPEND (m == head && m < SLOTS)
#define IS_MINE(m) (kind[m] == CLAIM && arg[m] == me)

/* The source named its last checkpoint for this claim, and that is on the store. Not STORED: that is said
   only when ACT names it. */
#ifdef MOVE_ON_OLDER
#define MAY_ACT(m) (newest != 0)
#elif defined(FROZEN_FOR_ANY)
#define MAY_ACT(m) (frozen_for != 0 && newest == state_now)
#else
#define MAY_ACT(m) (frozen_for == m && newest == state_now)
#endif

/* What a frozen source is thawed by: the end of its claim, read in the log. */
#define MAY_THAW(m) ((kind[m] == RELEASE || kind[m] == ABORT) && frozen_for != 0 && frozen_for < m)

inline append(k, a) {
  put(m + 1, k, a, epoch[m]);
  m = head
}

proctype Cms(byte me) {
  byte m = 1; /* the head as last read */
end:
  do
  :: atomic { m != head -> m = head }
  :: atomic { CAN_APPEND && wanted && IS_CLOSED(m) && epoch[m] == 1 -> append(CLAIM, me) }
  :: atomic { CAN_APPEND && kind[m] == CLAIM && arg[m] != me && FAULT -> faults++; append(CLAIM, me) }
  :: atomic { IS_MINE(m) && !HAS(freeze_sent, m) -> freeze_sent = freeze_sent | (1 << m) }
  :: atomic { CAN_APPEND && IS_MINE(m) && MAY_ACT(m) -> append(ACT, newest) }
  :: atomic { CAN_APPEND && IS_MINE(m) && FAULT -> faults++; append(RELEASE, 0); wanted = false }
  :: atomic { CAN_APPEND && IS_MINE(m) && target_lost -> append(RELEASE, 0); wanted = false }
  :: atomic { kind[m] == ACT && !HAS(go_sent, m) -> go_sent = go_sent | (1 << m) }
  :: atomic { CAN_APPEND && kind[m] == ACT && HAS(acked, m) -> append(DONE, arg[m]); wanted = false }
  :: atomic { CAN_APPEND && kind[m] == ACT && (target_lost || HAS(refused, m)) ->
       append(ABORT, 0);
       wanted = false }
#ifdef THAW_ONLY_BY_CLAIMER /* who thaws what its own claim froze, as far as it knows */
  :: atomic { MAY_THAW(m) && arg[m - 1] == me && frozen_for == m - 1 && !HAS(thaw_sent, m) ->
       thaw_sent = thaw_sent | (1 << m) }
#else
  :: atomic { MAY_THAW(m) && !HAS(thaw_sent, m) -> thaw_sent = thaw_sent | (1 << m) }
#endif
  :: atomic { kind[m] == DONE && !fenced_sent -> fenced_sent = true }
#ifdef FENCED_BEFORE_DONE
  :: atomic { kind[m] == ACT && !fenced_sent -> fenced_sent = true }
#endif
  od
}

#define CAN_FREEZE(c) \
  (HAS(freeze_sent, c) && (source_runs || frozen_for != 0) && frozen_for < c && thawed_above < c)
#define FREEZE(c) :: atomic { CAN_FREEZE(c) -> source_runs = false; frozen_for = c }
#ifdef THAW_NOT_COMPARED
#define CAN_THAW(r) (HAS(thaw_sent, r) && frozen_for != 0)
#else
#define CAN_THAW(r) (HAS(thaw_sent, r) && frozen_for != 0 && frozen_for < r)
#endif
#define THAW(r) :: atomic { CAN_THAW(r) -> thaw(); thawed_above = r }
inline thaw() {
  assert(!target_runs);
  source_runs = true;
  frozen_for = 0
}

active proctype Source() {
end:
  do
  FREEZE(2)
  FREEZE(3)
  FREEZE(4)
  FREEZE(5)
  FREEZE(6)
#if FAULTS > 2
  FREEZE(7)
#endif
  THAW(3)
  THAW(4)
  THAW(5)
  THAW(6)
  THAW(7)
  THAW(8)
#if FAULTS > 2
  THAW(9)
#endif
#ifdef THAW_BY_TIME
  :: atomic { frozen_for != 0 && FAULT -> faults++; thaw() }
#endif
  :: atomic { source_runs && state_now < MOVES + 1 -> state_now++ }
  :: atomic { newest < state_now -> newest = state_now } /* a checkpoint; of a frozen one, its last */
  :: atomic { fenced_sent && (source_runs || frozen_for != 0) -> source_runs = false; frozen_for = 0 }
  od
}

#define GO_HAS_COME(a) (HAS(go_sent, a) && !target_runs && !target_lost && !HAS(refused, a) && !HAS(acked, a))
#define OBEY(a) :: atomic { GO_HAS_COME(a) -> obey(a) }
#define REFUSE(a) :: atomic { GO_HAS_COME(a) && FAULT -> faults++; refused = refused | (1 << a) }
inline obey(a) {
  assert(!source_runs);
  assert(arg[a] == state_now);
  target_runs = true;
  ran = a
}

active proctype Target() {
  byte ran;
end:
  do
  OBEY(3)
  OBEY(4)
  OBEY(5)
  OBEY(6)
  OBEY(7)
  REFUSE(3)
  REFUSE(4)
  REFUSE(5)
  REFUSE(6)
#if FAULTS > 2
  OBEY(8)
  REFUSE(7)
#endif
  :: atomic { target_runs && !HAS(acked, ran) -> acked = acked | (1 << ran) }
  :: atomic { !target_lost && kind[head] != DONE && FAULT ->
       faults++;
       target_lost = true;
       target_runs = false }
  od
}

active proctype Operator() {
end:
  do
  :: atomic { moves < MOVES && !wanted && epoch[head] == 1 -> moves++; wanted = true }
  od
}

active proctype Watch() {
end:
  timeout ->
    assert(head < SLOTS || IS_CLOSED(head)); /* SLOTS is no limit */
    assert(IS_CLOSED(head) && frozen_for == 0 && (kind[head] == DONE -> !source_runs : source_runs));
    assert(kind[head] != DONE || target_runs || target_lost)
}

init {
  atomic {
    put(1, GENESIS, 0, 1);
    run Cms(1);
    run Cms(2)
  }
}
