//! Going through a range in pieces: several threads load them, one takes the results in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// The largest piece: one large frame.
const MAX_PIECE_BYTES: u64 = 2 << 20;

/// How a range is cut up and how many threads work on it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) range: Range<u64>,
    /// A power of two.
    pub(crate) piece_bytes: u64,
    pub(crate) threads: usize,
}

/// A piece of work or its result, with its place in the order.
type Numbered<T> = (u64, T);

impl Plan {
    /// Pieces and threads such that all threads together hold at most half the budget pinned, or one frame.
    pub(crate) fn new(range: Range<u64>, threads: u16, budget_bytes: u64, frame_bytes: u64) -> Self {
        let share = |threads: u64| budget_bytes / (2 * threads);
        let threads =
            (1..=u64::from(threads)).rev().find(|&threads| share(threads) >= frame_bytes).unwrap_or(1);
        let piece_bytes = match share(threads).clamp(frame_bytes, MAX_PIECE_BYTES.max(frame_bytes)) {
            bytes if bytes.is_power_of_two() => bytes,
            bytes => bytes.next_power_of_two() / 2,
        };
        Self { range, piece_bytes, threads: threads as usize }
    }

    /// How many pieces there are.
    fn piece_count(&self) -> u64 {
        (self.range.end - self.range.start).div_ceil(self.piece_bytes)
    }

    /// Piece `index`. The last one may be shorter.
    fn piece(&self, index: u64) -> Range<u64> {
        let start = self.range.start + index * self.piece_bytes;
        start..self.range.end.min(start.saturating_add(self.piece_bytes))
    }
}

/// Runs `work` on every piece of the plan, several at a time, and `take` on the results, in order.
///
/// `work` also gets a buffer that is its thread's own. The first failure in the order of pieces ends the walk,
/// after the pieces already begun. At most two pieces for each thread are begun and not yet taken.
pub(crate) fn in_order<T: Send>(
    plan: &Plan,
    interrupt: &Interrupt,
    work: impl Fn(Range<u64>, &mut Vec<u8>) -> Result<T, Failure> + Sync,
    take: impl FnMut(Range<u64>, T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (orders, order_queue) = channel();
    let (answers, results) = channel();
    let order_queue = Mutex::new(order_queue);
    thread::scope(|scope| {
        for _ in 0..plan.threads {
            let answers = answers.clone();
            let (order_queue, work) = (&order_queue, &work);
            let body = move || run_worker(order_queue, &answers, work);
            let spawned = thread::Builder::new().name("walk".to_string()).spawn_scoped(scope, body);
            spawned.map_err(|error| Failure::io("start a thread", &error))?;
        }
        // Taking the sender by value lets the workers end when this ends, also by an error.
        dispatch(plan, interrupt, orders, &results, take)
    })
}

/// Keeps the workers busy and takes their results in order.
fn dispatch<T>(
    plan: &Plan,
    interrupt: &Interrupt,
    orders: Sender<Numbered<Range<u64>>>,
    results: &Receiver<Numbered<Result<T, Failure>>>,
    mut take: impl FnMut(Range<u64>, T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let ahead = 2 * plan.threads as u64;
    let mut early = BTreeMap::new();
    let mut begun = 0;
    for index in 0..plan.piece_count() {
        interrupt.check()?;
        while begun < plan.piece_count().min(index + ahead) {
            orders.send((begun, plan.piece(begun))).expect("the queue outlives this function");
            begun += 1;
        }
        while !early.contains_key(&index) {
            let (number, result) = results.recv().expect("every order is answered");
            early.insert(number, result);
        }
        let result = early.remove(&index).expect("it was just found");
        take(plan.piece(index), result?)?;
    }
    Ok(())
}

/// Answers orders until there are no more. A panic in `work` is an answer too, or `dispatch` would wait for ever.
fn run_worker<T>(
    orders: &Mutex<Receiver<Numbered<Range<u64>>>>,
    answers: &Sender<Numbered<Result<T, Failure>>>,
    work: &impl Fn(Range<u64>, &mut Vec<u8>) -> Result<T, Failure>,
) {
    let mut buffer = Vec::new();
    let next = || orders.lock().ok()?.recv().ok();
    while let Some((number, piece)) = next() {
        let result = catch_unwind(AssertUnwindSafe(|| work(piece, &mut buffer)));
        let result = result.unwrap_or_else(|_| Err(Failure::Message("a worker thread panicked".to_string())));
        if answers.send((number, result)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, in_order};
    use crate::failure::Failure;
    use crate::interrupt::Interrupt;

    fn fail(text: &str) -> Failure {
        Failure::Message(text.to_string())
    }

    fn walked(plan: &Plan) -> Vec<std::ops::Range<u64>> {
        let mut taken = Vec::new();
        let work = |piece: std::ops::Range<u64>, _: &mut Vec<u8>| Ok(piece);
        in_order(plan, &Interrupt::never(), work, |piece, result| {
            assert_eq!(piece, result);
            taken.push(piece);
            Ok(())
        })
        .expect("nothing fails");
        taken
    }

    #[test]
    fn pinned_pieces_fit_the_budget() {
        for (threads, budget, frame) in
            [(1, 64 << 20, 4096), (8, 64 << 20, 4096), (4, 40960, 4096), (3, 5 << 20, 2 << 20)]
        {
            let plan = Plan::new(0..1, threads, budget, frame);
            assert!(plan.piece_bytes.is_power_of_two() && plan.piece_bytes >= frame);
            assert!(plan.threads as u64 * plan.piece_bytes * 2 <= budget, "{plan:?}");
        }
        let tiny = Plan::new(0..1, 8, 4096, 4096);
        assert_eq!((tiny.threads, tiny.piece_bytes), (1, 4096));
        assert_eq!(Plan::new(0..1, 8, 1, 4096).piece_bytes, 4096);
        assert_eq!(Plan::new(0..1, 1, u64::MAX, 4096).piece_bytes, 2 << 20);
    }

    #[test]
    fn results_come_in_order_and_cover_the_range() {
        for threads in [1, 2, 5] {
            let plan = Plan { range: 10..1003, piece_bytes: 16, threads };
            let pieces = walked(&plan);
            assert_eq!(pieces.first().map(|piece| piece.start), Some(10));
            assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(pieces.last(), Some(&(1002..1003)));
        }
        assert!(walked(&Plan { range: 7..7, piece_bytes: 16, threads: 2 }).is_empty());
        assert_eq!(walked(&Plan { range: u64::MAX - 20..u64::MAX, piece_bytes: 16, threads: 1 }).len(), 2);
    }

    #[test]
    fn the_first_failure_in_order_counts() {
        let plan = Plan { range: 0..160, piece_bytes: 16, threads: 3 };
        let work = |piece: std::ops::Range<u64>, _: &mut Vec<u8>| match piece.start {
            start if start >= 64 => Err(fail(&start.to_string())),
            _ => Ok(()),
        };
        let mut taken = 0;
        let result = in_order(&plan, &Interrupt::never(), work, |_, ()| {
            taken += 1;
            Ok(())
        });
        assert_eq!((result, taken), (Err(fail("64")), 4));
    }

    #[test]
    fn a_panic_an_interrupt_and_a_failed_take_end_the_walk() {
        let plan = Plan { range: 0..160, piece_bytes: 16, threads: 2 };
        let panics = in_order(
            &plan,
            &Interrupt::never(),
            |_, _| -> Result<(), _> { panic!("on purpose") },
            |_, ()| Ok(()),
        );
        assert_eq!(panics, Err(fail("a worker thread panicked")));
        let stopped = in_order(&plan, &Interrupt::already(), |_, _| Ok(()), |_, ()| Ok(()));
        assert_eq!(stopped, Err(Failure::Interrupted));
        let closed = in_order(&plan, &Interrupt::never(), |_, _| Ok(()), |_, ()| Err(Failure::ClosedPipe));
        assert_eq!(closed, Err(Failure::ClosedPipe));
    }
}
