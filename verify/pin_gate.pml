/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Model of the pin gate protocol (mm/page_isolation.c, mm/gup.c,
 * mm/page_alloc.c) for the spin model checker.  Run it with verify/run.sh.
 *
 * WHO TAKES PART
 *
 * isolator  A CMA allocation with a drain.  Isolates its pageblocks (one owner a
 *           block; the loser touches nothing, and tries again).  Makes a pass,
 *           which skips what is pinned.  Looks at what is left: closes the gates
 *           of blocks with pinned pages, opens those of empty blocks.  Wakes the
 *           waiters of the other blocks.  Looks again and again until nothing
 *           left is pinned (or for 10 ms, if something can be moved), then makes
 *           the next pass; if nothing was pinned, it closes the gates of all that
 *           is left before.  Ends when nothing is left, after DRAIN_TRIES more
 *           passes for which nothing was pinned, at the end of the budget, or on
 *           an error.  Every way out opens what is closed.
 * user      Pins, does I/O, unpins and pins again at once (a hot buffer).
 *           Walks by GUP-fast first where FAST() says so, then by GUP-slow.
 *           GUP-fast never waits.  If no gate is closed, it keeps what it has
 *           pinned, and GUP-slow pins the rest with no check, as it must not wait
 *           while these pins are held.  If a gate is closed, GUP-fast keeps its
 *           pins only if it has all pages and none of them is gated.  Otherwise
 *           it drops them, and GUP-slow pins all pages.
 *           GUP-slow checks all its pins at the end.  If one is gated, it queues,
 *           drops its pins, sleeps, and starts over, without GUP-fast.  After its
 *           deadline, or when killed, it keeps them.
 *           Direct I/O (DIO()) looks first, holding nothing: it pins one page
 *           after the other, by GUP-fast or else by GUP-slow, waits if the page is
 *           gated, and keeps no pin.  Then it pins all, with no check.  A look
 *           skips what is not mapped, which can be a page in migration; not so if
 *           it has waited for that page.
 * killer    Sends user 0 a fatal signal at an arbitrary moment.
 * memory    Writes store buffers back at arbitrary moments.
 *
 * A page is the place in CMA memory that a buffer starts out in.  pte says where
 * the buffer is now: OLD (there), MIG (a migration entry) or NEW (outside of the
 * area, never gated).  pins is the share of the refcount that pins explain,
 * frozen a refcount of 0.  When a range is given up, its buffers get mapped at
 * their old place again, so that the next round finds work.
 *
 * Left out is memory that only GUP-fast can pin: GUP-slow fails there, holding
 * nothing, and then GUP-fast pins with no check, as direct I/O does after its look.
 * Nobody sleeps on a gate meanwhile, and the drain waits for such a pin as for any
 * other.  But 2b, 2c and 5 do not hold for this memory.
 *
 * MEMORY MODEL
 *
 * A store, and an atomic operation without ordering (set_bit(), atomic_inc(),
 * folio_ref_add()), first lands in a store buffer of its CPU, one slot for each
 * variable.  Slots reach memory in any order (weaker than TSO) and at any time,
 * at the latest at the CPU's next full barrier or next store to that variable.
 * A read sees memory, or the CPU's own slot.
 *
 * Buffered are the bit, the counter and the pin of GUP-slow.  The pin of
 * GUP-fast is not: try_grab_folio_fast() ends in smp_mb__after_atomic().  The
 * gate check leans on that barrier, and not on the ordered atomic_add_unless()
 * before it, because a folio looks pinned only after the relaxed add between the
 * two.  Where a mutant lacks a barrier between a store and a load of a waiter,
 * the load comes first.
 *
 * GUP-slow pins by a relaxed add under the page-table lock.  The unlock is only a
 * release, so (on arm64, say) pin and unlock can both still be invisible to
 * others when the check that follows reads counter and bit: GUP-slow can miss
 * the gate while the isolator's scan misses the pin.  Such a pin is a straggler.
 * It does no harm: to unmap the page, migration takes the same page-table lock,
 * hence sees the pin when it tries to freeze the refcount, and backs off.  It
 * costs one pass.  A walk that begins after pin_gate_close() has returned cannot
 * do it, so a task has at most one straggler for each closing of a gate.
 *
 * PROPERTIES
 *
 * 1  No lost wake-up: where there are no timeouts, a waiter left asleep is an
 *    invalid end state.  That goes for the wake after a pass as well: a waiter
 *    whose page has moved goes on, even if the drain never ends.
 * 2a When a page is handed out, nobody has it pinned; nobody's pin on it stays
 *    while it has its new owner.
 * 2b No pin stays that was taken by a walk begun behind the closed gate, unless
 *    the deadline of the call has passed, or it was killed.  A walk in which
 *    GUP-slow pins the rest began with GUP-fast: if a gate has closed since, the
 *    rest is pinned all the same, but not what GUP-fast pins (2c).
 *    For direct I/O: no I/O that was begun behind the closed gate, or has looked
 *    at the page there, has a pin, with the same exception, and one more: its
 *    look has skipped the page, and then the migration failed.
 *    So there is at most one call or I/O for each task and closing, one that had
 *    begun before, and one I/O for each failed migration.
 * 2c A pin of GUP-fast that stays was visible to every scan behind the gate.  Not
 *    for direct I/O, which checks nothing then.
 * 2d Nobody sleeps on a gate with a pin of the same call or I/O in hand.
 * 3  Every waiter leaves: invalid end state, or call_ends, if not.
 * 4  All gates of a range are open when it is given up; at the end the counter is
 *    0, and no pin or waiter is left.  Only the owner of the isolation closes or
 *    opens a gate.
 * 5  drain_ends: with weak fairness, the drain ends if pins end, against users
 *    that pin again for ever.
 *
 * Not used is what GUP-fast gets from switching off interrupts: the properties
 * hold on machines whose TLB flush sends no IPI.
 *
 * WHAT PROPERTY 5 RESTS ON
 *
 * The gate ends the wait for pins.  DRAIN_TRIES ends the passes: a woken walk
 * pins the page for a moment before it sees the gate, and every pass wakes.  So
 * walks can make each pass fail, in theory, by being in time for all of them.
 * Without the limit that goes on for ever (mutant NO_TRIES_LIMIT); with it, the
 * drain fails.
 */

/* ---- scenes: choose one by -DSCENE_x ---- */

/*
 * NI isolators, each ROUNDS(i) rounds (0: for ever) over blocks FROM(i)..TO(i);
 * NU users, each CALLS(u) I/Os (0: for ever) over pages FIRST(u)..LAST(u).
 * A user with HOLDS(u) never ends its I/O.  Page p lies in block p % NB.
 * All blocks share one wait queue, the worst collision.  STUCK: an isolator may
 * wait for ever.
 */
#if defined(SCENE_FAST_SLOW)		/* a fast and a slow caller on one page */
# define NU		2
# define CALLS(u)	2
# define ROUNDS(i)	2
# define FAST(u)	(u == 0)
#elif defined(SCENE_FAST_FAST_SLOW)
# define NU		3
# define FAST(u)	(u != 1)
#elif defined(SCENE_DIO)		/* direct I/O, and a slow caller */
# define NU		2
# define CALLS(u)	(2 - u)
# define ROUNDS(i)	2
# define FAST(u)	(u == 0)
# define DIO(u)		(u == 0)
#elif defined(SCENE_DIO_SPAN)		/* direct I/O, one over two blocks */
# define NB		2
# define NP		2
# define NU		2
# define TO(i)		1
# define FIRST(u)	u
# define LAST(u)	1
# define FAST(u)	1
# define DIO(u)		1
#elif defined(SCENE_KILL)		/* fatal signal, timeouts, budget */
# define NU		2
# define ROUNDS(i)	2
# define FAST(u)	(u == 0)
# define KILL
# define TIMEOUTS
# define BUDGET
#elif defined(SCENE_KILL_DIO)
# define NU		2
# define FAST(u)	(u == 0)
# define DIO(u)		(u == 0)
# define KILL
# define TIMEOUTS
# define BUDGET
#elif defined(SCENE_SAME_BLOCK)		/* two isolators after one block */
# define NI		2
# define NU		2
# define ROUNDS(i)	(2 - i)
# define BUDGET
# define FAST(u)	(u == 0)
#elif defined(SCENE_OVERLAP)		/* ranges 0-1 and 1 */
# define NI		2
# define NB		2
# define NP		2
# define NU		2
# define BUDGET
# define FROM(i)	i
# define TO(i)		1
# define FIRST(u)	u
#elif defined(SCENE_BUCKET)		/* two gates, one wait queue */
# define NI		2
# define NB		2
# define NP		2
# define NU		2
# define FROM(i)	i
# define TO(i)		i
# define FIRST(u)	u
#elif defined(SCENE_SPAN)		/* one call over two blocks, one in the second */
# define NB		2
# define NP		2
# define NU		2
# define TO(i)		1
# define FIRST(u)	u
# define LAST(u)	1
# define FAST(u)	(u == 0)
#elif defined(SCENE_MOVED)		/* a pin for ever: the other page moves on */
# define NP		2
# define NU		2
# define CALLS(u)	(2 - u)
# define FIRST(u)	u
# define FAST(u)	(u == 0)
# define HOLDS(u)	(u == 1)
# define STUCK
#elif defined(SCENE_EMPTIED)		/* the same, in two blocks */
# define NB		2
# define NP		2
# define NU		2
# define CALLS(u)	(2 - u)
# define TO(i)		1
# define FIRST(u)	u
# define FAST(u)	(u == 0)
# define HOLDS(u)	(u == 1)
# define STUCK
#elif defined(SCENE_HOLDER)		/* the same, and the budget ends */
# define NP		2
# define NU		2
# define ROUNDS(i)	2
# define BUDGET
# define FIRST(u)	u
# define FAST(u)	(u == 0)
# define HOLDS(u)	(u == 1)
#elif defined(SCENE_STUCK)		/* nor does the isolator: own clock or signal */
# define NU		2
# define CALLS(u)	2
# define KILL
# define TIMEOUTS
# define HOLDS(u)	(u == 1)
# define STUCK
#elif defined(SCENE_STUCK_KILL)		/* only the signal is left */
# define NU		2
# define KILL
# define HOLDS(u)	(u == 1)
# define STUCK
#elif defined(SCENE_HOT)		/* for drain_ends: one hot page, two users */
# define NU		2
# define CALLS(u)	0
# define ROUNDS(i)	0
# define FAST(u)	(u == 0)
#elif defined(SCENE_HOT_DIO)
# define NU		2
# define CALLS(u)	0
# define FAST(u)	(u == 0)
# define DIO(u)		(u == 0)
#elif defined(SCENE_HOT_PAGES)		/* for drain_ends: a hot page for each user */
# define NP		2
# define NU		2
# define CALLS(u)	0
# define FIRST(u)	u
# define FAST(u)	(u == 0)
#elif defined(SCENE_BACK_TO_BACK)	/* for call_ends: isolations without end */
# define CALLS(u)	0
# define ROUNDS(i)	0
# define TIMEOUTS
# define FAST(u)	1
#elif defined(SCENE_BACK_TO_BACK_DIO)
# define CALLS(u)	0
# define ROUNDS(i)	0
# define TIMEOUTS
# define FAST(u)	1
# define DIO(u)		1
#else
# error "choose a scene"
#endif

#ifndef NI
# define NI		1
#endif
#ifndef NB
# define NB		1
#endif
#ifndef NP
# define NP		1
#endif
#ifndef NU
# define NU		1
#endif
#ifndef CALLS
# define CALLS(u)	1
#endif
#ifndef ROUNDS
# define ROUNDS(i)	1
#endif
#ifndef FROM
# define FROM(i)	0
#endif
#ifndef TO
# define TO(i)		0
#endif
#ifndef FIRST
# define FIRST(u)	0
#endif
#ifndef LAST
# define LAST(u)	FIRST(u)
#endif
#ifndef FAST
# define FAST(u)	0
#endif
#ifndef DIO
# define DIO(u)		0
#endif
#ifndef HOLDS
# define HOLDS(u)	0
#endif

#define BLOCK(p)	((p) % NB)
#define MAX_NAPS	1	/* after so many sleeps the deadline of a call has passed */
#define DRAIN_TRIES	1

/*
 * A place that at least one scene must get to: run.sh checks that spin does not
 * list it as unreached.  (Not inside d_step, which spin reports as one step.)
 */
#define REACHED(place)	printf(#place)

/* ---- memory ---- */

mtype = { OLD, MIG, NEW, SLOW };

bool gate[NB];			/* PB_pin_gate */
byte nr_gates;
byte owner[NB];			/* PB_migrate_isolate: isolator + 1 */
byte pins[NP];
bool frozen[NP];
mtype pte[NP] = OLD;
bool ptl[NP];			/* page-table lock, where held over several steps */
bool queued[NU];		/* has an entry in a wait queue */
bool asleep[NU];		/* the task state */
byte key[NU];
bool killed[NU];

/* ---- store buffers ---- */

#define NONE		0
#define SET		1	/* the bit: 1; the counter: one more */
#define CLEAR		2	/* the bit: 0; the counter: one less */

byte sb_gate[NI * NB];
byte sb_nr[NI];
bool sb_pin[NU * NP];		/* pin, then unlock */

#define SB_GATE(i, b)	sb_gate[(i) * NB + (b)]
#define SB_PIN(u, p)	sb_pin[(u) * NP + (p)]

/* ---- ghosts: what the properties are about ---- */

/*
 * A pin of a call or its I/O: NONE, NEW, or if the page is in its old place OLD
 * (by GUP-fast) or SLOW.
 */
byte held[NU * NP];
bool walking[NU];
bool late[NU * NP];		/* walk, look or I/O began behind the closed gate */
bool missed[NU * NP];		/* a scan behind the gate came by during this walk */
bool closed[NB];		/* pin_gate_close() has returned */
bool handed_out[NP];
bool draining[NI];
bool in_call[NU];		/* until it has its pins */

#define HELD(u, p)	held[(u) * NP + (p)]
#define IN_PLACE(u, p)	(HELD(u, p) == OLD || HELD(u, p) == SLOW)
#define LATE(u, p)	late[(u) * NP + (p)]
#define MISSED(u, p)	missed[(u) * NP + (p)]

hidden byte x, y;		/* loop counters inside d_step */

/* ---- the memory system ---- */

#define WRITE_GATE(i, b) \
	gate[b] = (SB_GATE(i, b) == SET); SB_GATE(i, b) = NONE
#define WRITE_NR(i) \
	nr_gates = (sb_nr[i] == SET -> nr_gates + 1 : nr_gates - 1); sb_nr[i] = NONE
#define WRITE_PIN(u, p) \
	pins[p]++; ptl[p] = false; SB_PIN(u, p) = false

#define MEM_GATE(i, b)	:: d_step { SB_GATE(i, b) != NONE -> WRITE_GATE(i, b) }
#define MEM_NR(i)	:: d_step { sb_nr[i] != NONE -> WRITE_NR(i) }
#define MEM_PIN(u, p)	:: d_step { SB_PIN(u, p) -> WRITE_PIN(u, p) }

active proctype memory()
{
end:	do
	MEM_GATE(0, 0)
	MEM_NR(0)
	MEM_PIN(0, FIRST(0))
#if NB > 1
	MEM_GATE(0, 1)
	MEM_PIN(0, LAST(0))
#endif
#if NI > 1
	MEM_GATE(1, NB - 1)
	MEM_NR(1)
#endif
#if NU > 1
	MEM_PIN(1, FIRST(1))
#endif
#if NU > 2
	MEM_PIN(2, FIRST(2))
#endif
	od
}

/* store to a bit or the counter by isolator i, after an older one to the same */
inline store_gate(i, b, v)
{
	d_step {
		if
		:: SB_GATE(i, b) != NONE -> WRITE_GATE(i, b)
		:: else
		fi;
		SB_GATE(i, b) = v
	}
}

inline store_nr(i, v)
{
	d_step {
		if
		:: sb_nr[i] != NONE -> WRITE_NR(i)
		:: else
		fi;
		sb_nr[i] = v
	}
}

/* inside d_step: a full barrier, or what a release does for earlier stores */
inline barrier(i)
{
	for (x : 0 .. NB - 1) {
		if
		:: SB_GATE(i, x) != NONE -> WRITE_GATE(i, x)
		:: else
		fi
	}
	if
	:: sb_nr[i] != NONE -> WRITE_NR(i)
	:: else
	fi;
	x = 0
}

#define OWN_GATE(i, b) \
	(SB_GATE(i, b) == SET || (SB_GATE(i, b) == NONE && gate[b]))

/* inside d_step: the same for user u */
inline user_barrier(u)
{
	for (x : FIRST(u) .. LAST(u)) {
		if
		:: SB_PIN(u, x) -> WRITE_PIN(u, x)
		:: else
		fi
	}
	x = 0
}

/* ---- the gate ---- */

#if NU == 1
# define WAITQUEUE_ACTIVE (queued[0])
#elif NU == 2
# define WAITQUEUE_ACTIVE (queued[0] || queued[1])
#else
# define WAITQUEUE_ACTIVE (queued[0] || queued[1] || queued[2])
#endif

#ifdef WRONG_KEY
# define WAKE_KEY(b)	((b) + 1)
#else
# define WAKE_KEY(b)	(b)
#endif

inline wake_up(b)
{
	if
	:: WAITQUEUE_ACTIVE ->
		d_step {		/* under the lock of the queue */
			for (x : 0 .. NU - 1) {
				if
				:: queued[x] && key[x] == WAKE_KEY(b) ->
					queued[x] = false;
					asleep[x] = false
				:: else
				fi
			}
			x = 0
		}
	:: else
	fi
}

inline pin_gate_wake(i, b)
{
	d_step { barrier(i) };		/* (B) */
	wake_up(b)
}

inline pin_gate_close(i, b)
{
	if
	:: OWN_GATE(i, b)
	:: else ->
		assert(owner[b] == i + 1);
		store_gate(i, b, SET);
#ifdef COUNT_AFTER_BARRIER
		d_step { barrier(i) };
#endif
		store_nr(i, SET);
		d_step {
#if !defined(NO_BARRIER) && !defined(COUNT_AFTER_BARRIER)
			barrier(i);	/* (A) */
#endif
			closed[b] = true
		}
	fi
}

/* inside d_step: from here on, pins in this block may stay */
inline forget_closing(b)
{
	closed[b] = false;
	for (x : 0 .. NU - 1) {
		for (y : 0 .. NP - 1) {
			if
			:: BLOCK(y) == b -> LATE(x, y) = false; MISSED(x, y) = false
			:: else
			fi
		}
	}
	x = 0;
	y = 0
}

inline pin_gate_open(i, b)
{
	if
	:: !OWN_GATE(i, b)
	:: else ->
		d_step {
			assert(owner[b] == i + 1);
			forget_closing(b)
		};
#if defined(WAKE_BEFORE_CLEAR)
		pin_gate_wake(i, b);
		store_gate(i, b, CLEAR);
		store_nr(i, CLEAR);
		d_step { barrier(i) }
#elif defined(NO_OPEN_BARRIER)
		store_gate(i, b, CLEAR);
		store_nr(i, CLEAR);
		wake_up(b)
#else
		store_gate(i, b, CLEAR);
		store_nr(i, CLEAR);
		pin_gate_wake(i, b)
#endif
	fi
}

/* ---- the isolator ---- */

#define IN_RANGE(i, p)	(BLOCK(p) >= FROM(i) && BLOCK(p) <= TO(i))
#define LEFT(i, p)	(IN_RANGE(i, p) && pte[p] == OLD)
#define READY(i, p)	(LEFT(i, p) && pins[p] == 0)

/* pages of a block, as a mask */
#if NB == 1
# define PAGES(b)	3
#else
# define PAGES(b)	(1 << (b))
#endif

/* Would a look find something else than the last one? */
#define NEWS(p)		(((left >> p) & 1) && (pins[p] == 0) == ((busy >> p) & 1))
#if NP == 1
# define ANY_NEWS	(NEWS(0))
#else
# define ANY_NEWS	(NEWS(0) || NEWS(1))
#endif

/*
 * Have 10 ms passed?  At any time; but where progress is the question, only an
 * I/O takes that long, and no walk.  Otherwise walks could keep some page busy
 * in each look, and such passes do not count as tries.
 */
#ifdef SCENE_HOT_PAGES
# define TEN_MS		(!in_call[0] || !in_call[1])
#else
# define TEN_MS		true
#endif

#define NEXT_MOVE \
	if \
	:: p == NP - 1 -> p = 0; goto moved \
	:: else -> p++ \
	fi

/*
 * Scan a page, and migrate it if the scan sees no pin.  Unmapping and mapping
 * take the page-table lock; they and the freeze are full barriers.
 */
inline move_page(i, p)
{
	if
	:: d_step {
		READY(i, p) ->
		for (x : 0 .. NU - 1) {
			if
			:: closed[BLOCK(p)] && walking[x] -> MISSED(x, p) = true
			:: else
			fi
		}
		x = 0
	   };
	   atomic { !ptl[p] -> pte[p] = MIG };
	   atomic {
		if
		:: pins[p] == 0 -> frozen[p] = true
		:: else -> REACHED(FREEZE_FAILED)
		fi
	   };
	   atomic { !ptl[p] -> pte[p] = (frozen[p] -> NEW : OLD); NEXT_MOVE }
	:: atomic { !READY(i, p) -> NEXT_MOVE }
	fi
}

#define LOOK_AT(i, p) \
	if \
	:: LEFT(i, p) -> \
		left = left | (1 << (p)); \
		busy = busy | (pins[p] -> 1 << (p) : 0) \
	:: else \
	fi

/* See what is left, and close and open gates accordingly. */
inline contig_update_gates(i)
{
	do
	:: atomic { b <= TO(i) -> LOOK_AT(i, b) };
#if NP > NB
		atomic { LOOK_AT(i, 1) };
#endif
		if
#ifndef EMPTY_STAYS_CLOSED
		:: !(left & PAGES(b)) -> pin_gate_open(i, b)
#endif
#ifndef NO_GATE
		:: (left & PAGES(b)) && (all || (busy & PAGES(b))) ->
			pin_gate_close(i, b)
#endif
		:: else
		fi;
		b++
	:: atomic { b > TO(i) -> b = FROM(i) }; break
	od
}

/* inside d_step */
inline hand_out(i)
{
	for (x : 0 .. NP - 1) {
		if
		:: IN_RANGE(i, x) ->
			for (y : 0 .. NU - 1) {
				assert(!IN_PLACE(y, x))
			}
			assert(pins[x] == 0);
			handed_out[x] = true;
			frozen[x] = false
		:: else
		fi
	}
	x = 0;
	y = 0
}

/*
 * Give up the range, block by block.  What was allocated is freed at once, and
 * the buffers that moved get mapped at their old place.
 */
inline unisolate(i)
{
	b = FROM(i);
	do
	:: d_step {
		b <= TO(i) ->
		assert(!closed[b]);
		barrier(i);
		owner[b] = 0;
		for (x : 0 .. NP - 1) {
			if
			:: BLOCK(x) == b ->
				handed_out[x] = false;
				frozen[x] = false;
				pte[x] = OLD
			:: else
			fi
		}
		x = 0;
		b++
	   }
	:: else -> break
	od
}

proctype isolator(byte i)
{
	byte b, p, round, left, busy, tries;
	bool passed, all, failed;

next_round:
	atomic {
#if defined(SCENE_BACK_TO_BACK) || defined(SCENE_BACK_TO_BACK_DIO)
		/* a walk meets the migrations of one round, then finds a page */
		!walking[0];
#endif
		b = FROM(i);
		tries = 0;
		failed = false;
		if
		:: ROUNDS(i) && round == ROUNDS(i) -> goto done
		:: ROUNDS(i) && round < ROUNDS(i) -> round++
		:: else
		fi
	};

	/* start_isolate_page_range(): all or nothing */
isolate:
	do
	:: b <= TO(i) ->
		atomic {
			if
			:: !owner[b] -> owner[b] = i + 1; b++
			:: else -> REACHED(BUSY); break
			fi
		}
	:: else -> goto pass
	od;
#ifdef LOSER_OPENS
	pin_gate_open(i, b);
#endif
	p = b;
	do
	:: atomic { b > FROM(i) -> b--; owner[b] = 0 }
	:: else -> break
	od;
	if
	:: atomic { !owner[p] -> goto isolate }
#ifdef BUDGET
	:: goto next_round
#endif
	fi;

pass:
	atomic { p = 0; b = FROM(i); left = 0; busy = 0; passed = true };
	do
	:: move_page(i, p)
	od;
moved:
#ifdef BUDGET
	if
	:: atomic { failed = true; REACHED(ERROR) } -> goto out
	:: true
	fi;
#endif

look:
	atomic { left = 0; busy = 0; b = FROM(i) };
	contig_update_gates(i);
#ifndef NO_WAKE
	/* whose page has moved can go on */
	do
	:: passed && b <= TO(i) ->
		if
		:: (left & PAGES(b)) -> pin_gate_wake(i, b)
		:: else
		fi;
		b++
	:: else -> break
	od;
#endif
	/* are gates closed now? */
	atomic { passed = false; b = FROM(i); draining[i] = busy || tries };

	if
	:: atomic { all -> all = false; goto pass }
	:: else
	fi;

	/* contig_wait() */
#ifdef STUCK
end_stuck:
#endif
	if
	:: atomic { !left -> goto out }
	:: atomic { left && !busy ->
		if
#ifndef NO_TRIES_LIMIT
		:: tries == DRAIN_TRIES ->
			failed = true;
			REACHED(TRIED_IN_VAIN);
			goto out
#endif
		:: else ->
			tries = (tries < DRAIN_TRIES -> tries + 1 : tries);
			all = true;
			goto look
		fi
	   }
	:: atomic { busy && ANY_NEWS -> goto look }
	:: atomic { busy && busy != left && TEN_MS -> REACHED(SOME_MOVABLE); goto pass }
#ifdef BUDGET
	:: atomic { busy -> failed = true; REACHED(GAVE_UP) }
#endif
	fi;

out:
#ifdef OPEN_AFTER_UNISOLATE
	unisolate(i);
#endif
#ifdef FORGOTTEN_ERROR_PATH
	if
	:: failed -> goto opened
	:: else
	fi;
#endif
	atomic { b = FROM(i); left = 0; busy = 0; tries = 0; passed = false };
	do
	:: b <= TO(i) -> pin_gate_open(i, b); b++
	:: else -> break
	od;
opened:
	atomic {
		draining[i] = false;
#ifndef OPEN_AFTER_UNISOLATE
		if
		:: failed
		:: else -> REACHED(HANDED_OUT); d_step { hand_out(i) }
		fi
#endif
	};
#ifndef OPEN_AFTER_UNISOLATE
	unisolate(i);
#endif
	goto next_round;
done:	skip
}

/* ---- GUP ---- */

#define GUP		0
#define LOOK		1	/* direct I/O: iov_iter_wait_pin_gates(), page by page */
#define NOGATE		2	/* and then: pin all, no check; or the rest of a GUP */

/* inside d_step: what begins now, begins behind these gates */
inline note_late(u)
{
	for (x : first .. last) {
		LATE(u, x) = LATE(u, x) || closed[BLOCK(x)]
	}
	x = 0
}

/* inside d_step */
inline walk_end(u)
{
	for (x : FIRST(u) .. LAST(u)) {
		MISSED(u, x) = false
	}
	x = 0;
	walking[u] = false
}

/* inside d_step: no pins are held */
inline walk_begin(u)
{
	walk_end(u);
	if
	:: phase != NOGATE -> note_late(u)
	:: else
	fi;
	walking[u] = true;
#ifdef CHECK_BEFORE_PIN
	counter = nr_gates;
#endif
	p = first
}

/* inside d_step: the call has all its pages, and the pins stay; may they? */
inline call_end(u)
{
	for (x : FIRST(u) .. LAST(u)) {
		assert(HELD(u, x));
		if
		:: IN_PLACE(u, x) ->
			assert(!handed_out[x]);
			assert(expired || !LATE(u, x));
			assert(DIO(u) || HELD(u, x) == SLOW || !MISSED(u, x))
		:: else
		fi;
		LATE(u, x) = false
	}
	user_barrier(u);		/* whatever comes next has one */
	walk_end(u);
	p = 0;
	phase = GUP;
	naps = 0;
	expired = false;
	in_call[u] = false
}

/* at the end of an atomic step of a loop over pages */
#define NEXT_PAGE \
	if \
	:: p == last -> p = first; break \
	:: else -> p++ \
	fi

/* of first to last, one at a time */
inline unpin(u)
{
	p = first;
	do
	:: atomic {
		d_step {
			if
			:: IN_PLACE(u, p) ->
				if
				:: SB_PIN(u, p) -> WRITE_PIN(u, p)
				:: else
				fi;
				pins[p]--
			:: else
			fi;
			HELD(u, p) = NONE
		};
		NEXT_PAGE
	   }
	od
}

#define NEXT_FAST \
	if \
	:: p == last -> p++; break \
	:: else -> p++ \
	fi

/*
 * Pin, then see whether the page is still mapped there.  No lock.  Stops at the
 * first page that it cannot pin.
 */
inline gup_fast(u)
{
	do
	:: pte[p] == MIG -> break
	:: atomic { pte[p] == NEW -> HELD(u, p) = NEW; NEXT_FAST }
	:: pte[p] == OLD ->
		if
		:: frozen[p] -> break
		:: atomic { !frozen[p] -> pins[p]++ }
		fi;
		if
		:: atomic { pte[p] == OLD -> HELD(u, p) = OLD; NEXT_FAST }
#ifdef NO_PTE_RECHECK
		:: atomic { pte[p] != OLD -> HELD(u, p) = OLD; NEXT_FAST }
#else
		:: atomic { pte[p] != OLD -> pins[p]--; break }
#endif
		fi
	od
}

/*
 * A look takes a page that is not mapped for one that is not there, unless it
 * has waited for it.
 */
inline gup_slow(u)
{
	do
	:: atomic { phase == LOOK && !waited && pte[p] == MIG ->
		REACHED(LOOK_SKIPS);
		LATE(u, p) = false;
		NEXT_PAGE
	   }
	:: atomic { !ptl[p] && pte[p] != MIG ->
		if
		:: pte[p] == OLD ->
			HELD(u, p) = SLOW;
			SB_PIN(u, p) = true;
#ifndef PIN_OUTSIDE_PTL
			ptl[p] = true
#endif
		:: else -> HELD(u, p) = NEW
		fi;
		NEXT_PAGE
	   }
	od
}

/* p is the first page whose gate is closed; if there is none, no need to wait */
inline first_pin_gated(u)
{
	do
	:: atomic {
		if
		:: IN_PLACE(u, p) && gate[BLOCK(p)] -> break
		:: else
		fi;
		if
		:: p == last && phase == GUP -> REACHED(NOT_GATED); goto keep
		:: p == last && phase == LOOK -> goto looked
		:: else -> p++
		fi
	   }
	od
}

#ifdef CHECK_BEFORE_PIN		/* in the code; or by the CPU, for want of a barrier */
# define COUNTER	counter
#else
# define COUNTER	nr_gates
#endif

proctype user(byte u)
{
	byte p, first, last, phase, call, naps;
	bool waited, expired;
#ifdef CHECK_BEFORE_PIN
	byte counter;
#endif

next_call:
	atomic {
		if
		:: killed[u] || (CALLS(u) && call == CALLS(u)) -> goto leave
		:: else
		fi;
		if
		:: CALLS(u) -> call++
		:: else
		fi;
		in_call[u] = true;
		first = FIRST(u);
		last = LAST(u);
		if
		:: DIO(u) -> d_step { note_late(u) }
		:: else -> goto walk
		fi
	};
#ifdef NO_LOOK
	phase = NOGATE;
#else
	if
	:: atomic { nr_gates == 0 -> phase = NOGATE }
	:: atomic { nr_gates != 0 -> phase = LOOK; last = first }
	fi;
#endif

walk:
	atomic {
		if
		:: !FAST(u) -> goto slow
		:: else -> d_step { walk_begin(u) }
		fi
	};
	gup_fast(u);
	/* gup_fast_gated(), but not for direct I/O */
	if
	:: atomic { phase != GUP && p > last -> p = first; goto walked }
	:: phase != GUP && p <= last -> goto rest
	:: phase == GUP && p == first -> goto slow
	:: atomic { phase == GUP && p > first && COUNTER == 0 ->
		if
		:: p > last -> goto keep
#ifdef REST_WAITS
		:: p <= last -> first = p; goto slow
#else
		:: p <= last -> phase = NOGATE; goto rest
#endif
		fi
	   }
	:: atomic { phase == GUP && p > first && COUNTER != 0 ->
		if
#ifdef FAST_KEEPS_GATED
		:: p > last -> goto keep
#endif
#ifdef FAST_KEEPS_PART
		:: p <= last && !gate[BLOCK(first)] -> phase = NOGATE; goto rest
#endif
		:: p > last -> p = first
		:: p <= last -> REACHED(PART_DROPPED); goto drop
		fi
	   }
	fi;
	first_pin_gated(u);
drop:
	unpin(u);
slow:
	atomic { true; d_step { walk_begin(u) } };
rest:
	gup_slow(u);
walked:
	if
	:: phase == NOGATE || (phase == GUP && COUNTER == 0) -> goto keep
	:: phase == LOOK || (phase == GUP && COUNTER != 0)
	fi;

	/* pin_gate_unpin_and_wait() */
#if defined(KILL) && !defined(KILLED_STARTS_OVER)
	if
	:: atomic { killed[u] -> expired = true; REACHED(KILLED) } -> goto no_wait
	:: !killed[u]
	fi;
#endif
	first_pin_gated(u);
#if defined(TIMEOUTS) && !defined(REARMED_DEADLINE)
	if
	:: atomic { naps == MAX_NAPS -> expired = true; REACHED(TIMED_OUT) } ->
		goto no_wait
	:: else -> naps++
	fi;
#endif

	/* pin_gate_prepare_to_wait() */
#ifdef UNPIN_BEFORE_QUEUE
	unpin(u);
#endif
#ifdef WAITER_NO_BARRIER
	if
	:: !gate[BLOCK(p)] -> goto queued_or_not
	:: gate[BLOCK(p)]
	fi;
#endif
	/* under the lock of the queue, with the task state; then a full barrier (B) */
	atomic { true; d_step {
		queued[u] = true;
#ifndef STATE_TOO_LATE
		asleep[u] = true;
#endif
		key[u] = BLOCK(p);
		user_barrier(u);
		walk_end(u)
	} };
#if !defined(NO_RECHECK) && !defined(WAITER_NO_BARRIER)
	/* has the gate opened meanwhile? */
	if
	:: atomic { !gate[BLOCK(p)] ->
		REACHED(OPEN_WHEN_QUEUED);
		queued[u] = false;
		asleep[u] = false
	   }
	:: gate[BLOCK(p)]
	fi;
#endif
queued_or_not:
#if !defined(SLEEP_HOLDING_PIN) && !defined(UNPIN_BEFORE_QUEUE)
	unpin(u);
#endif

	/* pin_gate_wait(), if queued */
#ifdef STATE_TOO_LATE
	if
	:: !queued[u] -> goto awake
	:: queued[u]
	fi;
	asleep[u] = true;
#else
	/* woken already? */
	atomic {
		if
		:: !queued[u] -> goto awake
		:: else
		fi;
#ifndef SLEEP_HOLDING_PIN
		assert(!HELD(u, FIRST(u)) && !HELD(u, LAST(u)))
#endif
	};
#endif
	if
	:: atomic {
		!asleep[u] ->
		REACHED(WOKEN);
		if
		:: pte[first] == NEW && gate[key[u]] -> REACHED(MOVED_ON)
		:: else
		fi
	   }
#ifndef NOT_KILLABLE
	:: atomic { killed[u] -> REACHED(KILLED_ASLEEP) }
#endif
#ifdef TIMEOUTS
	:: naps = MAX_NAPS
#endif
	fi;
awake:
#ifdef SLEEP_HOLDING_PIN
	unpin(u);
#endif
	atomic {
		d_step {
			queued[u] = false;
			asleep[u] = false;
			key[u] = 0;
			waited = (phase == LOOK)
		};
		if
		:: phase == GUP -> goto slow
#ifdef LOOK_ONCE
		:: phase == LOOK -> goto looked
#else
		:: phase == LOOK -> goto walk
#endif
		fi
	};

no_wait:
	if
	:: phase == GUP -> goto keep
	:: phase == LOOK -> last = LAST(u)
	fi;

looked:
#ifndef WAIT_HOLDING_PIECE
	unpin(u);
#endif
	if
	:: atomic { last < LAST(u) -> first++; last++; waited = false }
	:: atomic { last == LAST(u) -> phase = NOGATE; first = FIRST(u); waited = false }
#ifdef WAIT_HOLDING_PIECE
	   goto keep
#endif
	fi;
	goto walk;

keep:
	atomic {
		first = FIRST(u);
		if
		:: MISSED(u, first) && HELD(u, first) == SLOW -> REACHED(STRAGGLER)
		:: DIO(u) && closed[BLOCK(first)] && IN_PLACE(u, first) ->
			REACHED(SLIPPED)
		:: !DIO(u) && phase == NOGATE && closed[BLOCK(last)] && IN_PLACE(u, last) ->
			REACHED(REST_SLIPPED)
		:: else
		fi;
		d_step { call_end(u) }
	};
	if
	:: HOLDS(u) ->
end_hold:	false
	:: else
	fi;
	unpin(u);			/* the I/O is complete */
	goto next_call;

leave:	skip
}

#ifdef KILL
proctype killer()
{
	killed[0] = true
}
#endif

init
{
	atomic {
		byte n;

		for (n : 0 .. NI - 1) {
			run isolator(n)
		}
		for (n : 0 .. NU - 1) {
			run user(n)
		}
#ifdef KILL
		run killer()
#endif
		n = 0
	};
end_all:
	_nr_pr == 2;			/* memory and init */
	d_step {
		for (x : 0 .. NB - 1) {
			assert(!gate[x] && !owner[x])
		}
		for (x : 0 .. NP - 1) {
			assert(!pins[x] && !ptl[x])
		}
		for (x : 0 .. NU - 1) {
			assert(!queued[x])
		}
		assert(!nr_gates)
	}
}

ltl drain_ends { [](draining[0] -> <>!draining[0]) }
ltl call_ends { [](in_call[0] -> <>!in_call[0]) }
