/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Model of the pin gate protocol (mm/page_isolation.c, mm/gup.c,
 * mm/page_alloc.c) for the spin model checker.  Run it with verify/run.sh.
 *
 * WHO TAKES PART
 *
 * isolator  alloc_contig_frozen_range() for CMA.  Isolates its pageblocks (one
 *           owner a block; the loser gets -EBUSY and touches nothing) and makes
 *           a first pass.  If something is left, it closes the gates of the
 *           blocks concerned, then { waits for a leftover without pins, makes a
 *           pass, opens the blocks that are empty, wakes those it moved
 *           something out of } until nothing is left, a fatal signal, or the end
 *           of the budget.  Every way out opens what is closed.
 * user      Pins, does I/O, unpins and pins again at once (a hot buffer).
 *           GUP-fast first where FAST() says so, then GUP-slow.  A gated call
 *           drops its pins and mmap_lock, waits, and walks again, in the same
 *           way.  A GUP-fast walk that ends early is checked as well; what it
 *           has pinned stays in hand while GUP-slow pins the rest, and goes too
 *           if that must wait.
 * killer    Sends user 0 a fatal signal at an arbitrary moment.
 * memory    Writes store buffers back at arbitrary moments.
 *
 * A page is the place in CMA memory that a buffer starts out in.  pte says where
 * the buffer is now: OLD (there), MIG (a migration entry) or NEW (outside of the
 * area, never gated).  pins is the share of the refcount that pins explain,
 * frozen a refcount of 0.  When a range is given up, its buffers get mapped at
 * their old place again, so that the next round finds work.
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
 * before it, because folio_maybe_dma_pinned() turns true only with the relaxed
 * add between the two.
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
 *    invalid end state.
 * 2a When a page is handed out, nobody has it pinned; nobody's pin on it stays
 *    while it has its new owner.
 * 2b No pin stays that was taken by a walk begun behind the closed gate, unless
 *    the deadline of the call has passed.
 * 2c A pin of GUP-fast that stays was visible to every scan behind the gate,
 *    with the same exception.
 * 2d Nobody sleeps on a gate with a pin of the same call in hand.
 * 3  Every waiter leaves: invalid end state, or call_ends, if not.  A killed one
 *    leaves with nothing in hand.
 * 4  At the end all gates are open, the counter is 0, and no pin or waiter is
 *    left.  Only the owner of the isolation closes or opens a gate.
 * 5  drain_ends: with weak fairness, the drain ends if pins end, against users
 *    that pin again for ever.
 *
 * Not used is what GUP-fast gets from switching off interrupts: the properties
 * hold on machines whose TLB flush sends no IPI.
 *
 * WHAT PROPERTY 5 RESTS ON
 *
 * A gated walk pins the page for a moment before it sees the gate.  Each task
 * does so once for each wake.  If the isolator woke after every pass, also one
 * that moved nothing, then the re-walks it causes could make its next pass fail,
 * and so on (mutant WAKE_EVERY_PASS).  Woken only after progress, waiters get no
 * more wakes than there are pages to move.
 *
 * A task that pins without ever sleeping on the gate (FOLL_PIN_NOWAIT in a loop)
 * is not covered: its momentary pins can make every pass fail, in theory.
 *
 * The wake between two passes is a hint: a waiter whose page moves after it has
 * dropped its pin, but before it is queued, misses it, and sleeps until the next
 * wake, the opening, or its deadline.  The wake by the opening cannot be missed:
 * the check of the bit after queueing covers it.
 */

/* ---- scenes: choose one by -DSCENE_x ---- */

/*
 * NI isolators, each ROUNDS(i) rounds (0: for ever) over blocks FROM(i)..TO(i);
 * NU users, each CALLS(u) I/Os (0: for ever) over pages FIRST(u)..LAST(u).
 * A user with HOLDS(u) never ends its I/O.  Page p lies in block p % NB.
 * All blocks share one wait queue, the worst collision.
 */
#if defined(SCENE_FAST_SLOW)		/* a fast and a slow caller on one page */
# define NU		2
# define CALLS(u)	2
# define ROUNDS(i)	2
# define FAST(u)	(u == 0)
#elif defined(SCENE_FAST_FAST_SLOW)
# define NU		3
# define FAST(u)	(u != 1)
#elif defined(SCENE_KILL)		/* fatal signal, timeouts, budget */
# define NU		2
# define ROUNDS(i)	2
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
# define FAST(u)	(u == 0)
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
#elif defined(SCENE_TWO_PAGES)		/* of one block: wakes between passes */
# define NP		2
# define NU		2
# define CALLS(u)	2
# define FIRST(u)	u
# define FAST(u)	(u == 0)
#elif defined(SCENE_HOLDER)		/* a pin that never ends: the budget does */
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
# define STUCK
# define KILL
# define TIMEOUTS
# define HOLDS(u)	(u == 1)
#elif defined(SCENE_STUCK_KILL)		/* only the signal is left */
# define NU		2
# define STUCK
# define KILL
# define HOLDS(u)	(u == 1)
#elif defined(SCENE_HOT)		/* for drain_ends: one hot page, two users */
# define NU		2
# define CALLS(u)	0
# define ROUNDS(i)	0
# define FAST(u)	(u == 0)
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
#ifndef HOLDS
# define HOLDS(u)	0
#endif

#define BLOCK(p)	((p) % NB)
#define MAX_NAPS	1	/* after so many sleeps the deadline of a call has passed */

/*
 * A place that at least one scene must get to: run.sh checks that spin does not
 * list it as unreached.  (Not inside d_step, which spin reports as one step.)
 */
#define REACHED(place)	printf(#place)

/* ---- memory ---- */

mtype = { OLD, MIG, NEW };

bool gate[NB];			/* PB_pin_isolate */
byte nr_gates;
byte owner[NB];			/* PB_migrate_isolate: isolator + 1 */
byte pins[NP];
bool frozen[NP];
mtype pte[NP] = OLD;
bool ptl[NP];			/* page-table lock, where held over several steps */
bool queued[NU];		/* wait queue entry; a wake takes it off */
byte key[NU];
bool killed[NU];

/* ---- store buffers ---- */

#define NONE		0
#define SET		1	/* the bit: 1; the counter: one more */
#define CLEAR		2	/* the bit: 0; the counter: one less */

byte sb_gate[NI * NB];
byte sb_nr[NI];
bool sb_pin[NU * NP];		/* pin, then unlock */
bool sb_queued[NU];

#define SB_GATE(i, b)	sb_gate[(i) * NB + (b)]
#define SB_PIN(u, p)	sb_pin[(u) * NP + (p)]

/* ---- ghosts: what the properties are about ---- */

byte held[NU * NP];		/* pins of the call or its I/O: NONE, OLD or NEW */
bool walking[NU];
bool late[NU * NP];		/* this walk began behind the closed gate */
bool missed[NU * NP];		/* a scan behind the gate came by during this walk */
bool closed[NB];		/* pin_gate_close() has returned */
bool handed_out[NP];
bool draining[NI];
bool in_call[NU];

#define HELD(u, p)	held[(u) * NP + (p)]
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
#define WRITE_QUEUED(u) \
	queued[u] = true; sb_queued[u] = false

#define MEM_GATE(i, b)	:: d_step { SB_GATE(i, b) != NONE -> WRITE_GATE(i, b) }
#define MEM_NR(i)	:: d_step { sb_nr[i] != NONE -> WRITE_NR(i) }
#define MEM_PIN(u, p)	:: d_step { SB_PIN(u, p) -> WRITE_PIN(u, p) }
#define MEM_QUEUED(u)	:: d_step { sb_queued[u] -> WRITE_QUEUED(u) }

active proctype memory()
{
end:	do
	MEM_GATE(0, 0)
	MEM_NR(0)
	MEM_PIN(0, FIRST(0))
	MEM_QUEUED(0)
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
	MEM_QUEUED(1)
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
					queued[x] = false
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
	d_step { barrier(i) };		/* wq_has_sleeper() */
	wake_up(b)
}

inline pin_gate_close(i, b)
{
	if
	:: OWN_GATE(i, b)
	:: else ->
		assert(owner[b] == i + 1);
		store_gate(i, b, SET);
#if defined(NO_BARRIER)
		store_nr(i, SET);
#elif defined(COUNT_AFTER_BARRIER)
		d_step { barrier(i) };
		store_nr(i, SET);
#else
		store_nr(i, SET);
		d_step { barrier(i) };
#endif
		closed[b] = true
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

#if NP == 1
# define ANY(what, i)	(what(i, 0))
# define BLOCK_LEFT(b)	(pte[0] == OLD)
#elif NB == 1
# define ANY(what, i)	(what(i, 0) || what(i, 1))
# define BLOCK_LEFT(b)	(pte[0] == OLD || pte[1] == OLD)
#else
# define ANY(what, i)	(what(i, 0) || what(i, 1))
# define BLOCK_LEFT(b)	(pte[b] == OLD)
#endif

#ifdef WAKE_EVERY_PASS
# define WAKE_WORTH(b)	BLOCK_LEFT(b)
#else
# define WAKE_WORTH(b)	(BLOCK_LEFT(b) && (moved & (1 << (b))))
#endif

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
		:: pins[p] == 0 -> frozen[p] = true; moved = moved | (1 << BLOCK(p))
		:: else -> REACHED(FREEZE_FAILED)
		fi
	   };
	   atomic { !ptl[p] -> pte[p] = (frozen[p] -> NEW : OLD); p++ }
	:: atomic { !READY(i, p) -> p++ }
	fi
}

/* inside d_step */
inline hand_out(i)
{
	for (x : 0 .. NP - 1) {
		if
		:: IN_RANGE(i, x) ->
			for (y : 0 .. NU - 1) {
				assert(HELD(y, x) != OLD)
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
	byte b, p, round, moved;
	bool gated, failed;

next_round:
	atomic {
#ifdef SCENE_BACK_TO_BACK
		/* a walk meets the migrations of one round, then finds a page */
		!walking[0];
#endif
		b = FROM(i);
		p = 0;
		gated = false;
		failed = false;
		if
		:: ROUNDS(i) && round == ROUNDS(i) -> goto done
		:: ROUNDS(i) && round < ROUNDS(i) -> round++
		:: else
		fi
	};

	/* start_isolate_page_range(): all or nothing */
	do
	:: b <= TO(i) ->
		atomic {
			if
			:: !owner[b] -> owner[b] = i + 1; b++
			:: else -> REACHED(BUSY); break
			fi
		}
	:: else -> goto isolated
	od;
#ifdef LOSER_OPENS
	pin_gate_open(i, b);
#endif
	do
	:: atomic { b > FROM(i) -> b--; owner[b] = 0 }
	:: else -> goto next_round
	od;

isolated:
	do
	:: 	atomic { p = 0; moved = 0 };
		do
		:: p < NP -> move_page(i, p)
		:: else -> break
		od;

		b = FROM(i);
		do
		:: gated && b <= TO(i) ->
			if
			:: !BLOCK_LEFT(b) -> pin_gate_open(i, b)
			:: WAKE_WORTH(b) -> pin_gate_wake(i, b)
			:: else
			fi;
			b++
		:: else -> break
		od;

		if
		:: !ANY(LEFT, i) -> break
		:: else
		fi;
#ifndef NO_GATE
		b = FROM(i);
		do
		:: !gated && b <= TO(i) ->
			if
			:: BLOCK_LEFT(b) -> pin_gate_close(i, b)
			:: else
			fi;
			b++
		:: else -> break
		od;
#endif
		atomic { gated = true; draining[i] = true };
#ifdef STUCK
end_stuck:
#endif
		if
		:: ANY(READY, i)
#ifdef BUDGET
		:: atomic { failed = true; REACHED(GAVE_UP) } -> break
#endif
		fi
	od;

#ifdef OPEN_AFTER_UNISOLATE
	unisolate(i);
#endif
#ifdef FORGOTTEN_ERROR_PATH
	if
	:: failed -> goto opened
	:: else
	fi;
#endif
	b = FROM(i);
	do
	:: b <= TO(i) -> pin_gate_open(i, b); b++
	:: else -> break
	od;
opened:
	draining[i] = false;
#ifndef OPEN_AFTER_UNISOLATE
	if
	:: failed
	:: atomic { !failed -> REACHED(HANDED_OUT); d_step { hand_out(i) } }
	fi;
	unisolate(i);
#endif
	goto next_round;
done:	skip
}

/* ---- GUP ---- */

inline walk_begin(u)
{
	d_step {
		for (x : FIRST(u) .. LAST(u)) {
			LATE(u, x) = closed[BLOCK(x)] && !HELD(u, x)
		}
		x = 0;
		walking[u] = true;
		gated = NP;
		p = FIRST(u)
	}
}

/* inside d_step */
inline walk_end(u)
{
	for (x : FIRST(u) .. LAST(u)) {
		LATE(u, x) = false;
		MISSED(u, x) = false
	}
	x = 0;
	p = 0;
	gated = 0;
	walking[u] = false
}

/* inside d_step: the pins of this walk stay; may they? */
inline keep(u, fast)
{
	for (x : FIRST(u) .. LAST(u)) {
		if
		:: HELD(u, x) == OLD ->
			assert(!handed_out[x]);
			assert(expired || !LATE(u, x));
			assert(expired || !fast || !MISSED(u, x))
		:: else
		fi
	}
	walk_end(u)
}

/* inside d_step: the call has all its pages */
inline call_end(u)
{
	for (x : FIRST(u) .. LAST(u)) {
		assert(HELD(u, x))
	}
	x = 0;
	naps = 0;
	expired = false;
	in_call[u] = false
}

/* one check for all that is pinned: the counter, then the bit of each block */
#ifdef CHECK_BEFORE_PIN		/* in the code; or by the CPU, for want of a barrier */
# define PIN_MATTERS(u, p)	(HELD(u, p) != NEW)
#else
# define PIN_MATTERS(u, p)	(HELD(u, p) == OLD)
#endif

inline check_gates(u)
{
	if
	:: nr_gates == 0
	:: atomic { nr_gates != 0 -> p = FIRST(u) };
	   do
	   :: atomic {
		if
		:: PIN_MATTERS(u, p) && gate[BLOCK(p)] -> gated = p; break
		:: else
		fi;
		p++;
		if
		:: p > LAST(u) -> break
		:: else
		fi
	      }
	   od
	fi
}

inline unpin_all(u)
{
	p = FIRST(u);
	do
	:: d_step {
		p <= LAST(u) ->
		if
		:: HELD(u, p) == OLD ->
			if
			:: SB_PIN(u, p) -> WRITE_PIN(u, p)
			:: else
			fi;
			pins[p]--
		:: else
		fi;
		HELD(u, p) = NONE;
		p++
	   }
	:: else -> break
	od
}

#define ALL_HELD(u)	(HELD(u, FIRST(u)) && HELD(u, LAST(u)))

/* Pin, then see whether the page is still mapped there.  No lock. */
inline gup_fast(u)
{
	walk_begin(u);
#ifdef CHECK_BEFORE_PIN
	check_gates(u);
	p = FIRST(u);
#endif
	do
	:: p > LAST(u) -> break
	:: p <= LAST(u) ->
		if
		:: pte[p] == MIG -> break
		:: atomic { pte[p] == NEW -> HELD(u, p) = NEW }
		:: pte[p] == OLD ->
			if
			:: frozen[p] -> break
			:: atomic { !frozen[p] -> pins[p]++ }
			fi;
			if
			:: atomic { pte[p] == OLD -> HELD(u, p) = OLD }
#ifdef NO_PTE_RECHECK
			:: atomic { pte[p] != OLD -> HELD(u, p) = OLD }
#else
			:: atomic { pte[p] != OLD -> pins[p]--; break }
#endif
			fi
		fi;
		p++
	od;
#if !defined(CHECK_BEFORE_PIN) && !defined(NO_GATE)
	if
	:: !expired -> check_gates(u)
	:: else
	fi;
#endif
	/* a walk that ended early is checked as well, GUP-slow pins the rest */
	if
	:: gated == NP ->
		d_step { keep(u, true) };
		if
		:: ALL_HELD(u) -> d_step { call_end(u) }; goto pinned
		:: else
		fi
	:: d_step { else -> REACHED(FAST_GATED); waits_for = BLOCK(gated); walk_end(u) } ->
		goto wait
	fi
}

inline gup_slow(u)
{
	walk_begin(u);
	do
	:: atomic { p <= LAST(u) && HELD(u, p) -> p++ }
	:: atomic { p <= LAST(u) && !HELD(u, p) && !ptl[p] && pte[p] != MIG ->
		HELD(u, p) = pte[p];
		if
		:: pte[p] == OLD ->
			SB_PIN(u, p) = true;
#ifndef PIN_OUTSIDE_PTL
			ptl[p] = true
#endif
		:: else
		fi;
		p++
	   }
	:: p > LAST(u) -> break
	od;
#ifndef NO_GATE
	if
	:: !expired -> check_gates(u)
	:: else
	fi;
#endif
	/* whatever comes next has a full barrier */
	atomic { true; d_step {
		for (x : FIRST(u) .. LAST(u)) {
			if
			:: SB_PIN(u, x) -> WRITE_PIN(u, x)
			:: else
			fi
		}
		x = 0
	} }
}

inline pin_gate_wait(u, b)
{
#if defined(TIMEOUTS) && !defined(REARMED_DEADLINE)
	if
	:: naps == MAX_NAPS -> expired = true; goto walk
	:: else -> naps++
	fi;
#endif
#ifdef WAITER_NO_BARRIER
	d_step { key[u] = b; sb_queued[u] = true };
#else
	/* under the lock of the queue; setting the task state is a full barrier */
	d_step { key[u] = b; queued[u] = true };
#endif
#ifndef NO_RECHECK
	if
	:: atomic { !gate[b] -> REACHED(OPEN_WHEN_QUEUED) } -> goto finish
	:: gate[b]
	fi;
#endif
	atomic { true; d_step {
		if
		:: sb_queued[u] -> WRITE_QUEUED(u)
		:: else
		fi;
#ifndef SLEEP_HOLDING_PIN
		for (x : FIRST(u) .. LAST(u)) {
			assert(!HELD(u, x))
		}
		x = 0
#endif
	} };
	if
	:: atomic {
		!queued[u] ->
		REACHED(WOKEN);
		if
		:: pte[FIRST(u)] == NEW && gate[b] -> REACHED(MOVED_ON)
		:: else
		fi
	   }
#ifndef NOT_KILLABLE
	:: atomic { killed[u] -> interrupted = true; REACHED(KILLED) }
#endif
#ifdef TIMEOUTS
	:: atomic { expired = true; REACHED(TIMED_OUT) }
#endif
	fi;
finish:
	atomic { true; d_step { sb_queued[u] = false; queued[u] = false; key[u] = 0; waits_for = 0 } }
}

proctype user(byte u)
{
	byte p, call, gated, naps, waits_for;
	bool fast, expired, interrupted;

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
		fast = FAST(u)
	};
walk:
	if
	:: fast -> gup_fast(u)
	:: else
	fi;
	fast = false;
	gup_slow(u);
	if
	:: atomic {
		gated == NP ->
		if
		:: MISSED(u, FIRST(u)) && HELD(u, FIRST(u)) == OLD ->
			REACHED(STRAGGLER)
		:: else
		fi;
		d_step { keep(u, false); call_end(u) }
	   } -> goto pinned
	:: d_step { else -> waits_for = BLOCK(gated); walk_end(u) }
	fi;
wait:
#ifndef SLEEP_HOLDING_PIN
	unpin_all(u);
#endif
	pin_gate_wait(u, waits_for);
	if
	:: !interrupted -> goto walk
	:: else -> goto leave
	fi;

pinned:
	if
	:: HOLDS(u) ->
end_hold:	false
	:: else
	fi;
	unpin_all(u);			/* the I/O is complete */
	goto next_call;

leave:
	atomic { true; d_step {
		in_call[u] = false;
		for (x : FIRST(u) .. LAST(u)) {
			assert(!HELD(u, x))
		}
		x = 0
	} }
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
