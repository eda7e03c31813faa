/* How a slot of a log is given away on a NAS: put-if-absent by LINK, REMOVE and READ.

   Two callers append to one log of two slots, each an attempt at a time, through a server that may do a
   LINK late, do it again, or lose its reply. The server's host may crash: what was not synced is then kept
   or lost, each name by itself, also the removal of a name. A caller that dies is one that is never
   scheduled again: its LINK may still be done.

   Claims (assert): what was told won, or read durably, stands in its slot for ever; an attempt that was
   told lost or never done is never in the slot; no slot is taken above an empty one. */

#ifndef ATTEMPTS
#define ATTEMPTS 4 /* in all, of both callers; at most 5 */
#endif
#ifndef CRASHES
#define CRASHES 2 /* of the server's host */
#endif

#define LIMIT_SLOTS 2

byte slot[LIMIT_SLOTS + 1];        /* the attempt whose record the name leads to; 0: no such name */
bool synced[LIMIT_SLOTS + 1];      /* the name survives a crash */
bool draft[ATTEMPTS + 1];          /* the private name is there */
bool asked[ATTEMPTS + 1];          /* a LINK is in the network or the server's queue */
bool waits[ATTEMPTS + 1];          /* its caller waits for a reply */
bool said_ok[ATTEMPTS + 1];        /* one is on its way */
bool said_refused[ATTEMPTS + 1];
byte goal[ATTEMPTS + 1];           /* the slot that it is for */
byte attempts;
byte life;                         /* of the server: its write verifier */
byte crashes;

/* Ghosts. */
byte fixed[LIMIT_SLOTS + 1];       /* the attempt that somebody acts on */
bool denied[ATTEMPTS + 1];         /* told: lost, or never done */

/* Whoever acts on a slot sees what everybody sees who ever does. */
inline act_on(s, a) {
  assert(slot[s] == a && (fixed[s] == 0 || fixed[s] == a));
  fixed[s] = a
}

inline deny(a) {
  assert(slot[goal[a]] != a);
  denied[a] = true
}

inline stop_waiting(a) {
  waits[a] = false;
  said_ok[a] = false;
  said_refused[a] = false
}

/* The server does the LINK of `a`, and may do it again later. */
#define CAN_LINK(a) (a <= attempts && asked[a])
inline do_link(a) {
  if
  :: draft[a] && slot[goal[a]] == 0 ->
       assert(!denied[a]);
       slot[goal[a]] = a;
       said_ok[a] = waits[a]
  :: else -> said_refused[a] = waits[a]
  fi;
  if
  :: asked[a] = false
  :: skip /* and once more, later */
  fi
}

active proctype Server() {
end:
  do
  :: atomic { CAN_LINK(1) -> do_link(1) }
  :: atomic { CAN_LINK(2) -> do_link(2) }
  :: atomic { CAN_LINK(3) -> do_link(3) }
#if ATTEMPTS > 3
  :: atomic { CAN_LINK(4) -> do_link(4) }
#endif
#if ATTEMPTS > 4
  :: atomic { CAN_LINK(5) -> do_link(5) }
#endif
  od
}

/* What was asked for dies with the server's connections, and nobody asks twice. So it does not matter that a
   private name may be back after a crash. */
active proctype Crash() {
  byte i;
end:
  do
  :: atomic { crashes < CRASHES ->
       crashes++;
       life++;
       i = 1;
       do
       :: i <= LIMIT_SLOTS ->
            if
            :: slot[i] != 0 && !synced[i] -> slot[i] = 0
            :: slot[i] != 0 -> synced[i] = true
            :: slot[i] == 0
            fi;
            assert(fixed[i] == 0 || slot[i] == fixed[i]);
            i++
       :: else -> break
       od;
       assert(slot[1] != 0 || slot[2] == 0);
       i = 1;
       do
       :: i <= ATTEMPTS -> asked[i] = false; i++
       :: else -> break
       od;
       i = 0 }
  od
}

proctype Caller() {
  byte a;          /* the attempt */
  byte s;          /* the slot that it is for */
  byte seen;       /* whose record a READ found */
  byte life_then;

again:
  /* The head. It is made sure of before a record is put above it. */
  atomic {
    s = 1; seen = 0; a = 0;
    do
    :: s <= LIMIT_SLOTS && slot[s] != 0 -> seen = slot[s]; s++
    :: else -> break
    od;
    life_then = life
  }
  if
  :: atomic { seen != 0 ->
#ifdef APPEND_BEFORE_SYNC
       skip
#else
#ifndef ACT_BEFORE_SYNC
       if
       :: life == life_then -> synced[s - 1] = true
       :: else -> goto again
       fi;
#endif
       act_on(s - 1, seen);
#endif
       seen = 0 }
  :: else
  fi;
  atomic {
    if
    :: s > LIMIT_SLOTS || attempts == ATTEMPTS -> goto done
    :: else
    fi;
    attempts++;
    a = attempts;
    goal[a] = s;
    draft[a] = true; /* CREATE, and WRITE to the medium */
    life_then = life;
    asked[a] = true;
    waits[a] = true
  }
  if
  :: atomic { said_ok[a] -> stop_waiting(a) }
#ifndef WON_BEFORE_SYNC
     atomic {
       if
#ifdef LIFE_NOT_COMPARED
       :: true ->
#else
       :: life != life_then -> goto resolve
       :: life == life_then ->
#endif
            if
            :: slot[s] == a -> synced[s] = true /* COMMIT of the file makes all its names durable */
            :: else
            fi
       fi
     }
#endif
     atomic { act_on(s, a); goto again }
  :: atomic { said_refused[a] -> stop_waiting(a) }
#ifdef REPLY_BELIEVED
     atomic { deny(a); goto again }
#endif
  :: atomic { true -> stop_waiting(a) } /* it does not come, or too late */
  fi;

resolve:
#ifndef DRAFT_NOT_REMOVED
  atomic { draft[a] = false; asked[a] = false } /* a LINK still under way finds nothing */
#endif
  if
  :: atomic { slot[s] != a -> deny(a); goto again }
  :: atomic { slot[s] == a -> life_then = life }
  fi;
  atomic {
    if
    :: life == life_then -> synced[s] = true; act_on(s, a); goto again
    :: life != life_then -> goto resolve
    fi
  }
done:
  skip
}

init { atomic { run Caller(); run Caller() } }
