/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_PIN_GATE_H
#define _LINUX_PIN_GATE_H

#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/jump_label.h>
#include <linux/wait.h>

/*
 * Pin gate: while the gate of a pageblock is closed, new FOLL_PIN pins of its
 * pages wait. See Documentation/mm/pin_gate.rst.
 */

/*
 * How long a GUP call, or the I/O that an iterator describes, waits at most,
 * however many gates it meets. After that it pins as if there were none. This
 * is on the waiter's own clock because whoever closed the gate can be stuck,
 * for example in folio_wait_writeback().
 */
#define PIN_GATE_MAX_WAIT	HZ

struct pin_gate_waiter {
	struct wait_queue_entry wqe;
	unsigned long block;		/* pageblock number waited for */
};

#ifdef CONFIG_CMA
DECLARE_STATIC_KEY_FALSE(pin_gate_key);
extern atomic_t nr_pin_gates_closed;
extern struct lockdep_map pin_gate_map;

/**
 * pin_gates_closed - is the pin gate of any pageblock closed?
 *
 * The answer can be stale. A caller that must not miss a closed gate pins
 * first and asks then, with a full barrier in between. It pairs with the one
 * in pin_gate_close(): either this sees the gate, or the closer sees the pin.
 *
 * Return: true if there is a closed gate anywhere.
 */
static __always_inline bool pin_gates_closed(void)
{
	return static_branch_likely(&pin_gate_key) &&
	       unlikely(atomic_read(&nr_pin_gates_closed));
}

int iov_iter_wait_pin_gates(const struct iov_iter *iter, bool nowait);
#else
static inline bool pin_gates_closed(void)
{
	return false;
}

static inline int iov_iter_wait_pin_gates(const struct iov_iter *iter,
					  bool nowait)
{
	return 0;
}
#endif /* CONFIG_CMA */

/* Where no gate can be closed, nobody calls these. */
bool page_pin_gated(const struct page *page);
void pin_gate_close(struct page *page);
void pin_gate_open(struct page *page);
void pin_gate_wake(struct page *page);
bool pin_gate_prepare_to_wait(struct pin_gate_waiter *waiter, struct page *page);
void pin_gate_wait(struct pin_gate_waiter *waiter, unsigned long deadline);
bool pin_gate_unpin_and_wait(struct page **pages, unsigned long nr_pages,
			     unsigned long *deadline);

/**
 * kiocb_wait_pin_gates - wait until direct I/O can pin its memory
 * @iocb: the I/O, about to be passed to ->read_iter() or ->write_iter()
 * @iter: the memory
 *
 * See iov_iter_wait_pin_gates(). A pipe can have O_DIRECT, but does not pin.
 *
 * Return: 0 to go on; -EAGAIN if IOCB_NOWAIT is set and it would have to wait.
 */
static inline int kiocb_wait_pin_gates(const struct kiocb *iocb,
				       const struct iov_iter *iter)
{
	if (!(iocb->ki_flags & IOCB_DIRECT) || !pin_gates_closed() ||
	    !(iocb->ki_filp->f_mode & FMODE_CAN_ODIRECT))
		return 0;
	return iov_iter_wait_pin_gates(iter, iocb->ki_flags & IOCB_NOWAIT);
}
#endif /* _LINUX_PIN_GATE_H */
