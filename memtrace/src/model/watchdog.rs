//! What the daemon leaves out when it takes more of a CPU than it may. Pure: CPU time in, what is left out
//! out.

/// What is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// Walks of heaps.
    pub walks: bool,
    /// What the kernel counts.
    pub counts: Counts,
}

/// What the kernel still counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counts {
    /// All that was asked for.
    #[default]
    All,
    /// No frames: what leaves processes, and not what the kernel gets back.
    NoFrames,
    /// Nothing.
    Nothing,
}

/// Windows of little use after which walks begin again, the first time; twice as many each time after.
const CALM: u32 = 10;
const MOST_CALM: u32 = 1440;

/// Looks after the budget, window by window.
#[derive(Clone, Debug)]
pub struct Watchdog {
    /// Part of a CPU, in millionths.
    budget: u32,
    window_ns: u64,
    shed: Shed,
    /// When the window began, and the CPU time by then.
    began: Option<(u64, u64)>,
    /// Windows one after the other that took less than half the budget, and how many it takes.
    calm: u32,
    wanted: u32,
}

impl Watchdog {
    /// Lets the daemon take a part of a CPU, in millionths, on average over so many ns.
    pub const fn new(budget: u32, window_ns: u64) -> Self {
        let shed = Shed { walks: false, counts: Counts::All };
        Self { budget, window_ns, shed, began: None, calm: 0, wanted: CALM }
    }

    /// Lets it take another part from now on.
    pub const fn set(&mut self, budget: u32, window_ns: u64) {
        (self.budget, self.window_ns) = (budget, window_ns);
        self.began = None;
    }

    /// Returns what is left out.
    pub const fn shed(&self) -> Shed {
        self.shed
    }

    /// Takes the CPU time that the daemon took so far, its probes' included where it is known. Returns the
    /// part of a CPU that it took, in millionths, if that changes what is left out.
    pub fn take(&mut self, now_ns: u64, cpu_ns: u64) -> Option<u64> {
        let Some((since_ns, before_ns)) = self.began else {
            self.began = Some((now_ns, cpu_ns));
            return None;
        };
        let passed_ns = now_ns.saturating_sub(since_ns);
        if passed_ns < self.window_ns.max(1) {
            return None;
        }
        self.began = Some((now_ns, cpu_ns));
        let took = u128::from(cpu_ns.saturating_sub(before_ns)) * 1_000_000;
        let took = u64::try_from(took / u128::from(passed_ns)).unwrap_or(u64::MAX);
        let budget = u64::from(self.budget);
        let before = self.shed;
        if took > budget {
            self.calm = 0;
            self.leave_out_more();
        } else if took < budget / 2 && self.shed.walks {
            self.calm += 1;
            if self.calm >= self.wanted {
                (self.calm, self.wanted) = (0, (2 * self.wanted).min(MOST_CALM));
                self.shed.walks = false;
            }
        } else {
            self.calm = 0;
        }
        (self.shed != before).then_some(took)
    }

    /// Walks first. What the kernel counts is not counted again: it would begin at nothing.
    const fn leave_out_more(&mut self) {
        if !self.shed.walks {
            self.shed.walks = true;
            return;
        }
        self.shed.counts = match self.shed.counts {
            Counts::All => Counts::NoFrames,
            Counts::NoFrames | Counts::Nothing => Counts::Nothing,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// 2 % of a CPU over 10 s.
    const BUDGET: u32 = 20_000;

    /// A watchdog, its time and the CPU time so far.
    struct Run(Watchdog, u64, u64);

    impl Run {
        fn new() -> Self {
            let mut watchdog = Watchdog::new(BUDGET, 10 * SECOND);
            assert_eq!(watchdog.take(0, 5 * SECOND), None);
            Self(watchdog, 0, 5 * SECOND)
        }

        /// Takes such a part of a CPU, in millionths, for one window.
        fn window(&mut self, part: u64) -> Option<u64> {
            self.1 += 10 * SECOND;
            self.2 += part * 10_000;
            self.0.take(self.1, self.2)
        }

        fn shed(&self) -> (bool, Counts) {
            (self.0.shed.walks, self.0.shed.counts)
        }
    }

    #[test]
    fn what_is_within_the_budget_changes_nothing() {
        let mut run = Run::new();
        assert!((0..100).all(|_| run.window(20_000).is_none()));
        assert_eq!(run.shed(), (false, Counts::All));
    }

    #[test]
    fn more_is_left_out_with_each_window_that_is_over_it() {
        let mut run = Run::new();
        assert_eq!(run.window(20_001), Some(20_001));
        assert_eq!(run.shed(), (true, Counts::All));
        assert_eq!(run.window(30_000), Some(30_000));
        assert_eq!(run.shed(), (true, Counts::NoFrames));
        assert_eq!(run.window(15_000), None);
        assert_eq!(run.window(30_000), Some(30_000));
        assert_eq!(run.shed(), (true, Counts::Nothing));
        assert_eq!(run.window(30_000), None, "there is nothing else");
    }

    #[test]
    fn a_window_is_looked_at_when_it_is_over() {
        let mut watchdog = Watchdog::new(BUDGET, 10 * SECOND);
        watchdog.take(0, 0);
        assert_eq!(watchdog.take(5 * SECOND, SECOND), None);
        assert_eq!(watchdog.take(10 * SECOND, SECOND), Some(100_000));
    }

    #[test]
    fn walks_begin_again_after_a_while_and_later_each_time() {
        let mut run = Run::new();
        run.window(30_000);
        assert!((0..9).all(|_| run.window(1_000).is_none()));
        // Half of the budget is no little use.
        assert_eq!(run.window(10_000), None);
        assert!((0..9).all(|_| run.window(1_000).is_none()));
        assert_eq!(run.window(1_000), Some(1_000));
        assert_eq!(run.shed(), (false, Counts::All));
        run.window(30_000);
        assert!((0..19).all(|_| run.window(1_000).is_none()));
        assert!(run.window(1_000).is_some());
    }

    #[test]
    fn counting_does_not_begin_again() {
        let mut run = Run::new();
        run.window(30_000);
        run.window(30_000);
        (0..10).for_each(|_| _ = run.window(0));
        assert_eq!(run.shed(), (false, Counts::NoFrames));
    }

    #[test]
    fn another_budget_begins_with_a_window_of_its_own() {
        let mut run = Run::new();
        run.0.set(100_000, 10 * SECOND);
        assert_eq!(run.window(500_000), None);
        assert_eq!(run.window(99_999), None);
        assert_eq!(run.window(100_001), Some(100_001));
    }
}
