//! Measures how long the probes run, now and then: measuring costs something too.

use anyhow::Result;

use crate::{
    model::top::ProbeTimes,
    probe::{
        attach::Probes,
        cost::{Measuring, is_always_measured},
    },
};

/// It measures in one interval of so many.
const TURNS: u32 = 10;

/// Has the kernel measure, and knows for how long it did.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    is_wanted: bool,
    measuring: Option<Measuring>,
    /// The machine is set so that it measures all the time.
    always: bool,
    since_ns: u64,
    measured_ns: u64,
    turn: u32,
}

impl Stopwatch {
    /// Measures if that is wanted, or if the machine does anyway.
    pub(super) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, ..Self::default() }
    }

    /// An interval has passed: returns what the probes took as far as that is known.
    pub(super) fn read(&mut self, now_ns: u64, probes: &Probes) -> Result<ProbeTimes> {
        if self.always || self.measuring.is_some() {
            self.measured_ns += now_ns.saturating_sub(self.since_ns);
        }
        let programs = if self.measured_ns > 0 { probes.runs()? } else { Vec::new() };
        self.since_ns = now_ns;
        self.always = is_always_measured();
        let is_due = self.is_wanted && !self.always && self.turn.is_multiple_of(TURNS);
        self.turn = self.turn.wrapping_add(1);
        self.measuring = None;
        if is_due {
            match Measuring::begin() {
                Ok(measuring) => self.measuring = Some(measuring),
                Err(error) => {
                    log::warn!("it is not measured how long probes run: {error:#}");
                    self.is_wanted = false;
                }
            }
        }
        Ok(ProbeTimes { measured_ns: self.measured_ns, programs })
    }
}
