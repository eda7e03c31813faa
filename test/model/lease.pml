/* Run leases: when somebody acts on LOST, nothing of that session runs, nor ever will.

   One ECU, its log, two or three lives of cmsd. All grant and bar; life 0 also appends LOST and acts on it, for
   which it looks at the records of the others, who renew them. Each may be paused between any two steps for any
   time; one that is paused for ever has died, and one that comes late is a new life, or one that was held for
   dead. Heartbeats, answers and writes are late or lost, one way or both, and whoever waits may be told nothing.
   The ECU may be paused, die, or restart at any time; a Hello of its may be answered in a later session.

   Time passes in ticks; ages are whole ticks. What must be over in time lasts as long as on the slowest clock,
   what must be waited for as short as on the fastest: T_FENCE is (1 + rho) * T_fence, T_DEAD (1 - rho) * T_dead,
   and so on. An age that no rule tells from a larger one stays.

   Claims (assert): `act`, `take_grant`. Variants have others:
     ANY_LOST  LOST may come from anybody at any time, without a look before it.
     DEAF      life 0 hears nothing, which leaves room for a third.
     YET_TO_BEGIN  the ECU has its session, but no lease yet; so does this.
     HEARD     life 1 hears the ECU and renews its record in each tick: LOST does not come.
     TIMELY    nobody waits but for time; the ECU and life 1 may die, and the ECU come back: what is due comes. */

#ifndef LIVES
#define LIVES 2 /* or 3 */
#endif
#ifndef SLOTS
#define SLOTS 3 /* of the ECU's log */
#endif
#ifndef NONCES
#define NONCES 2 /* starts of the ECU; at most 3 */
#endif

/* In ticks. What may last so long does so in the tick of that age, too. The rules of ADR 15 are strict: one tick
   more than what has to be over. */
#ifndef T_FENCE
#define T_FENCE 1
#define T_STOP 1
#define T_SELF 1
#endif
#ifdef DEAD_TOO_SHORT
#define T_DEAD (T_FENCE + T_STOP)
#else
#define T_DEAD (T_FENCE + T_STOP + 1)
#endif
#ifdef MEMBER_TOO_SHORT
#define T_MEMBER (T_SELF + T_FENCE + T_STOP)
#elif defined(RESIGNED_IS_DEAD)
#define T_MEMBER 0
#else
#define T_MEMBER (T_SELF + T_FENCE + T_STOP + 1)
#endif

/* It starts with an empty log; or in a session that all know, which has a lease; or in one without any yet. */
#if defined(HEARD) || defined(TIMELY)
#define BEGUN 1
#define WELCOMED 1
#else
#define BEGUN 0
#ifdef YET_TO_BEGIN
#define WELCOMED 1
#else
#define WELCOMED 0
#endif
#endif

/* The ECU's log: HELLO of a nonce, or LOST. A session is its HELLO's slot. */
#define LOST 9
byte rec[SLOTS + 2];
byte head = WELCOMED;
#define IS_HELLO(s) (rec[s] != 0 && rec[s] != LOST)
/* The newest LOST up to there; 0: none. Not looked for under more than two HELLO. */
#define LOST_BELOW(s) \
  (rec[s] == LOST -> s : (s > 0 && rec[s - 1] == LOST -> s - 1 : (s > 1 && rec[s - 2] == LOST -> s - 2 : 0)))

/* The ECU. */
#define NO_LEASE (T_FENCE + T_STOP + 1)
byte nonce = 1;
byte session = WELCOMED;               /* 0: it waits for one */
bool begun = BEGUN;                    /* it has had a lease in it */
byte lease = (BEGUN -> 0 : NO_LEASE); /* its age, from the sending of the heartbeat */
byte ran_since = BEGUN;               /* ghost: the session that it was in when its programs last were let go */
#define RUNS (lease <= T_FENCE + T_STOP)

/* What is under way between the ECU and each life; the next takes the place of the one before. A heartbeat
   arrives at once or never: one that is late is answered for a shorter lease, and puts the bar off. */
#define HELLO 1   /* ECU -> life; arg: nonce */
#define WELCOME 2 /* life -> ECU; arg: session */
#define GRANT 3   /* life -> ECU: `leased`; arg: session */
byte link[LIVES];
byte arg[LIVES];
byte age[LIVES]; /* of the heartbeat that GRANT answers */

/* Lives. */
byte known[LIVES] = BEGUN;   /* the head as last read */
bool read[LIVES] = BEGUN;    /* read since the own record was last renewed without a gap */
bool barred[LIVES];          /* `known`, a session, is barred */
byte silent[LIVES];          /* since `known`, a session that is not barred, was heard */
byte before[LIVES] = T_DEAD; /* since any session below `known` was heard */
byte fresh[LIVES] = (BEGUN -> 0 : T_SELF + 1); /* since the last good write of the own record was sent */
byte write[LIVES];           /* 1: sent; 2: done, and the answer is under way */
byte write_age[LIVES];

/* What life 0 has seen of the others' records, as if it read each when it is written: who reads later counts
   from later. A record that is torn or missing has not changed. */
byte unchanged[LIVES];
byte look;  /* 0: none; the life whose record comes next; LIVES: all showed what was looked for */
byte aim;   /* the session that it is about */
byte acted; /* ghost: the slot of the newest LOST that was acted on */

/* Variants' own. */
#ifdef HEARD
bool heard; /* life 1 has granted in this tick */
#endif
#ifdef TIMELY
bool ecu_is_up = true;
bool is_up[LIVES] = true;
byte ecu_since;   /* ticks since it died or came back */
byte died_since;  /* ... since life 1 died */
byte lost_since;  /* ... since there is a LOST that nobody has acted on */
bool hello[LIVES]; /* done in this tick */
bool beat[LIVES];
bool looked;
#define IS_UP(i) is_up[i]
#define ONCE(x) (!x)
#define DID(x) x = true
#else
#define IS_UP(i) true
#define ONCE(x) true
#define DID(x) skip
#endif

/* Whether i's record says that it grants nothing to session s, and granted nothing of late. It can be read from
   when that is so, since a write may take no time. Who has read LOST grants nothing to that session any more,
   but bars it only when it has not heard it for T_DEAD either. */
#ifdef LOST_BARS_AT_ONCE
#define BARS(i, s) (known[i] > s || (known[i] == s && barred[i]))
#elif defined(BARS_END_WITH_HELLO)
#define BARS(i, s) ((known[i] == s + 1 && rec[known[i]] == LOST && before[i] >= T_DEAD) || \
                    (known[i] == s && barred[i]))
#else
#define BARS(i, s) ((known[i] > s && before[i] >= T_DEAD) || (known[i] == s && barred[i]))
#endif

/* ---- messages */

inline clear(i) { link[i] = 0; arg[i] = 0; age[i] = 0 }
inline send(i, k, a) { link[i] = k; arg[i] = a; age[i] = 0 }

/* ---- lives */

#define IS_FRESH(i) (i == 0 || fresh[i] <= T_SELF) /* that life 0 acts when it must not does not matter here */

#ifdef SELF_IGNORED
#define MAY_GRANT(i) (known[i] == session && !barred[i])
#elif defined(BAR_IGNORED)
#define MAY_GRANT(i) (known[i] == session && IS_FRESH(i) && read[i])
#elif defined(READ_LONG_AGO)
#define MAY_GRANT(i) (known[i] == session && IS_FRESH(i) && !barred[i])
#elif defined(NOT_THE_HEAD)
#define MAY_GRANT(i) (known[i] >= session && IS_FRESH(i) && read[i] && !barred[i])
#else
#define MAY_GRANT(i) (known[i] == session && IS_FRESH(i) && read[i] && !barred[i])
#endif

inline know(i, s) {
  if
  :: IS_HELLO(known[i]) && !barred[i] && silent[i] < before[i] -> before[i] = silent[i]
  :: else
  fi;
  known[i] = s;
  read[i] = IS_FRESH(i);
  barred[i] = false;
  silent[i] = 0;
  look = (i == 0 -> 0 : look);
  aim = (i == 0 -> 0 : aim)
}

/* The ECU's heartbeat. */
inline hear(i) {
  if
  :: known[i] == session && !barred[i] -> silent[i] = 0
  :: else
  fi;
  if
  :: MAY_GRANT(i) ->
#ifdef HEARD
       heard = heard || i == 1;
#endif
       send(i, GRANT, session)
  :: else
  fi
}

inline take_hello(i) {
  if
  :: rec[head] == arg[i] -> send(i, WELCOME, head)
  :: rec[head] != arg[i] && head < SLOTS ->
       head++;
       rec[head] = arg[i];
       know(i, head);
       send(i, WELCOME, head)
  :: else -> clear(i)
  fi
}

#define LIFE(i) \
  :: atomic { IS_UP(i) && known[i] != head -> know(i, head) } \
  :: atomic { IS_UP(i) && known[i] == head && head != 0 && !read[i] && IS_FRESH(i) -> read[i] = true } \
  :: atomic { IS_UP(i) && link[i] == HELLO && known[i] == head -> take_hello(i) } \
  :: atomic { IS_UP(i) && IS_HELLO(known[i]) && !barred[i] && silent[i] >= T_DEAD -> \
       barred[i] = true; \
       silent[i] = 0 }

inline answer_write(i) {
#ifdef SELF_FROM_ANSWER
  fresh[i] = 0;
#else
  fresh[i] = (write_age[i] < fresh[i] -> write_age[i] : fresh[i]);
#endif
  write[i] = 0;
  write_age[i] = 0
}

#define RECORD(i) \
  :: atomic { IS_UP(i) && write[i] == 0 && fresh[i] > 0 -> write[i] = 1 } \
  :: atomic { write[i] == 1 -> write[i] = 2; unchanged[i] = 0 } \
  :: atomic { IS_UP(i) && write[i] == 2 -> answer_write(i) }

proctype Others() {
  do
  LIFE(1)
  RECORD(1)
#if LIVES > 2
  LIFE(2)
  RECORD(2)
#endif
  od
}

/* ---- the ECU */

inline begin_session() {
  nonce++;
  session = 0;
  begun = false;
#ifndef NOT_STOPPED
  lease = NO_LEASE; /* its programs have been stopped, or went with it */
  ran_since = 0
#endif
}

inline take_grant(i) {
  if
#ifdef LEASE_REVIVED
  :: arg[i] == session ->
#else
  :: arg[i] == session && (!begun || lease <= T_FENCE) ->
#endif
       ran_since = (RUNS -> ran_since : session);
       assert(ran_since > acted); /* what was acted on never has a lease again */
       begun = true;
#ifdef LEASE_FROM_RECEIPT
       lease = 0
#else
       lease = (age[i] < lease -> age[i] : lease)
#endif
  :: else
  fi;
  clear(i)
}

inline take_welcome(i) {
  if
#ifdef SESSION_BY_NONCE
  :: rec[arg[i]] == nonce -> session = arg[i]
#else
  :: rec[arg[i]] == nonce && session == 0 -> session = arg[i]
#endif
  :: else
  fi;
  clear(i)
}

#define TALK(i) \
  :: atomic { ONCE(hello[i]) && session == 0 && !(link[i] == HELLO && arg[i] == nonce) -> \
       send(i, HELLO, nonce); \
       DID(hello[i]) } \
  :: atomic { ONCE(beat[i]) && session != 0 -> hear(i); DID(beat[i]) } \
  :: atomic { link[i] == GRANT -> take_grant(i) } \
  :: atomic { link[i] == WELCOME -> take_welcome(i) }

proctype Ecu() {
  do
#ifndef DEAF
  TALK(0)
#endif
  TALK(1)
#if LIVES > 2
  TALK(2)
#endif
#if !defined(TIMELY) && !defined(HEARD)
  :: atomic { nonce < NONCES -> begin_session() }
#endif
  od
}

/* ---- life 0 looks at the members */

inline look_at(i) {
  if
#ifdef NEVER_STALE
  :: BARS(i, aim) -> look++
#else
  :: BARS(i, aim) || unchanged[i] >= T_MEMBER -> look++
#endif
  :: else -> look = 0; aim = 0
  fi
}

inline append_lost() {
#ifdef HEARD
  assert(barred[1]); /* it hears it, and does not */
#endif
  head++;
  rec[head] = LOST;
  know(0, head)
}

inline act() {
  assert(!(RUNS && ran_since <= aim)); /* nothing of it runs */
  acted = aim + 1;
  look = 0;
  aim = 0
}

#ifdef OTHERS_NOT_ASKED
#define FIRST LIVES
#else
#define FIRST 1
#endif
#ifdef SELF_NOT_ASKED
#define MAY_LOOK_AGAIN true
#else
#define MAY_LOOK_AGAIN BARS(0, LOST_BELOW(known[0]) - 1)
#endif
#ifdef LOOK_BEFORE_BAR
#define MAY_LOOK IS_HELLO(known[0])
#else
#define MAY_LOOK (IS_HELLO(known[0]) && barred[0])
#endif

proctype Watcher() {
  atomic { /* it starts, whenever that is; what it has not seen yet counts from then */
    true ->
#ifdef YOUNG_LOOKS /* whose record is missing that day has died, it thinks */
    unchanged[1] = T_MEMBER
#else
    unchanged[1] = 0
#endif
#if LIVES > 2
    ; unchanged[2] = unchanged[1]
#endif
  }
  do
  LIFE(0)
  :: atomic { look == 1 -> look_at(1) }
#if LIVES > 2
  :: atomic { look == 2 -> look_at(2) }
#endif
#ifndef ANY_LOST
  :: atomic { ONCE(looked) && look == 0 && MAY_LOOK && head < SLOTS ->
       aim = known[0];
       look = FIRST;
       DID(looked) }
  :: atomic { look == LIVES && aim == head && barred[0] -> append_lost() }
#else
  :: atomic { IS_HELLO(head) && head < SLOTS -> head++; rec[head] = LOST }
#endif
#ifdef ONE_LOOK
  :: atomic { LOST_BELOW(known[0]) > acted -> aim = LOST_BELOW(known[0]) - 1; act() }
#elif defined(HELLO_PROVES_LOST)
  :: atomic { LOST_BELOW(known[0]) > acted && IS_HELLO(known[0]) -> aim = LOST_BELOW(known[0]) - 1; act() }
#endif
  :: atomic { ONCE(looked) && look == 0 && LOST_BELOW(known[0]) > acted && MAY_LOOK_AGAIN ->
       aim = LOST_BELOW(known[0]) - 1;
       look = 1;
       DID(looked) }
  :: atomic { look == LIVES && rec[aim + 1] == LOST && aim < known[0] -> act() }
  od
}

/* ---- time */

#define PLUS(x, most) x = (x < most -> x + 1 : x)

inline pass_for(i) {
  silent[i] = (IS_HELLO(known[i]) && !barred[i] && silent[i] < T_DEAD -> silent[i] + 1 : silent[i]);
  PLUS(before[i], T_DEAD);
  if
  :: link[i] == GRANT && age[i] < T_FENCE -> age[i]++
  :: link[i] == GRANT && age[i] >= T_FENCE -> clear(i) /* too late, or lost */
  :: else
  fi
}

inline pass_for_record(i) {
  PLUS(fresh[i], T_SELF + 1);
  read[i] = read[i] && fresh[i] <= T_SELF;
  if
  :: write[i] != 0 && write_age[i] < T_SELF -> write_age[i]++
  :: write[i] != 0 && write_age[i] >= T_SELF -> write[i] = 0; write_age[i] = 0 /* no answer, or too late */
  :: else
  fi;
  PLUS(unchanged[i], T_MEMBER)
}

inline pass() {
  PLUS(lease, NO_LEASE);
  ran_since = (RUNS -> ran_since : 0);
  pass_for(0);
  pass_for(1);
  pass_for_record(1);
#if LIVES > 2
  pass_for(2);
  pass_for_record(2)
#endif
}

#ifdef TIMELY
#define MOST 9
inline what_is_due() {
  /* A dead ECU is LOST when all bar it, or when a member that died with it is stale; then it is acted on. */
  assert(ecu_is_up || ecu_since <= T_DEAD || rec[head] == LOST || (!is_up[1] && died_since <= T_MEMBER));
  assert(LOST_BELOW(head) <= acted || lost_since <= 1 || (!is_up[1] && died_since <= T_MEMBER));
  /* One that is back has a lease. */
  assert(!ecu_is_up || ecu_since == 0 || (begun && lease <= T_FENCE))
}

inline fault() {
  if
  :: true
  :: ecu_is_up -> ecu_is_up = false; ecu_since = 0; clear(0); clear(1)
  :: !ecu_is_up && nonce < NONCES -> begin_session(); ecu_is_up = true; ecu_since = 0
  :: is_up[1] -> is_up[1] = false
  fi
}

inline pass_for_due() {
  PLUS(ecu_since, MOST);
  died_since = (!is_up[1] && died_since < MOST -> died_since + 1 : died_since);
  lost_since = (LOST_BELOW(head) <= acted -> 0 : (lost_since < MOST -> lost_since + 1 : MOST));
  hello[0] = !ecu_is_up;
  hello[1] = !ecu_is_up;
  beat[0] = !ecu_is_up;
  beat[1] = !ecu_is_up;
  looked = false
}
#endif

proctype Time() {
  do
#ifdef TIMELY
  :: atomic { timeout -> what_is_due(); fault(); pass(); pass_for_due() }
#elif defined(HEARD)
  :: d_step { heard && fresh[1] == 0 -> heard = false; pass() }
#else
  :: d_step { true -> pass() }
#endif
  od
}

init {
  atomic {
    rec[WELCOMED] = WELCOMED;
    run Ecu();
    run Others();
    run Watcher();
    run Time()
  }
}
