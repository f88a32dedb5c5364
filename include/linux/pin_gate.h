/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_PIN_GATE_H
#define _LINUX_PIN_GATE_H

#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/jump_label.h>

/*
 * Pin gate: while the gate of a pageblock is closed, new FOLL_PIN pins of its
 * pages wait. See Documentation/mm/pin_gate.rst.
 */

/*
 * How long one GUP call, or one I/O, waits at most, at all gates it meets. Then
 * it pins as if there were none. The drain itself can be stuck, for example in
 * folio_wait_writeback().
 */
#define PIN_GATE_MAX_WAIT	HZ

#ifdef CONFIG_CMA
DECLARE_STATIC_KEY_FALSE(pin_gate_key);
extern atomic_t nr_pin_gates_closed;

/*
 * Is any gate closed? Ask after pinning, with a full barrier in between: see
 * (A) in mm/page_isolation.c.
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

/**
 * kiocb_wait_pin_gates - wait until direct I/O can pin its memory
 * @iocb: the I/O, about to be passed to ->read_iter() or ->write_iter()
 * @iter: its memory
 *
 * Does nothing for a pipe: it can have O_DIRECT, but does not pin.
 *
 * Return: 0 or -EAGAIN, as iov_iter_wait_pin_gates().
 */
static inline int kiocb_wait_pin_gates(const struct kiocb *iocb,
				       const struct iov_iter *iter)
{
	if (!(iocb->ki_flags & IOCB_DIRECT) || !pin_gates_closed() ||
	    !(iocb->ki_filp->f_mode & FMODE_CAN_ODIRECT))
		return 0;
	return iov_iter_wait_pin_gates(iter, iocb->ki_flags & IOCB_NOWAIT);
}

/**
 * kiocb_wait_pin_gates_implicit - the same for direct I/O without O_DIRECT
 * @iocb: the I/O
 * @iter: its memory
 *
 * For files whose ->read_iter() and ->write_iter() do such I/O. To be called by
 * them, before they take a lock.
 *
 * Return: 0 or -EAGAIN, as iov_iter_wait_pin_gates().
 */
static inline int kiocb_wait_pin_gates_implicit(const struct kiocb *iocb,
						const struct iov_iter *iter)
{
	if (iocb->ki_flags & IOCB_DIRECT)
		return 0;
	return iov_iter_wait_pin_gates(iter, iocb->ki_flags & IOCB_NOWAIT);
}
#endif /* _LINUX_PIN_GATE_H */
