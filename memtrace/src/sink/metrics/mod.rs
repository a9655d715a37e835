//! What is told of a machine, as OpenMetrics text for Prometheus and as instruments for OpenTelemetry.
//! docs/SERVE.md lists the names.

mod families;
pub mod otlp;

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, prometheus_text, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{self, Registry},
};

use self::families::{Instrument, Point, Unit, Value, families};
use crate::model::{fleet::Fleet, report::Evidence, top::ProbeTimes, watchdog::Shed};

/// What the daemon says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    /// Version of memtrace.
    pub version: &'static str,
    /// What the figures rest on; `None` while nothing is counted.
    pub evidence: Option<Evidence>,
    /// CPU time of the daemon, seconds.
    pub cpu_seconds: f64,
    /// Its resident bytes.
    pub resident: u64,
    /// Its open file descriptors.
    pub open_fds: u64,
    /// CPU time that walks took, seconds.
    pub walk_seconds: f64,
    /// Walks.
    pub walks: u64,
    /// Walks that found no heap or could not look at the process.
    pub walks_failed: u64,
    /// The share of a CPU that walks may take.
    pub walk_budget: f64,
    /// The share of a CPU that the daemon may take.
    pub budget: f64,
    /// What is left out, since it took more.
    pub shed: Shed,
    /// Address spaces that could not be counted since the table was full.
    pub untracked: u64,
    /// How long the probes ran.
    pub probes: Arc<ProbeTimes>,
    /// Times that figures were sent by OTLP.
    pub exports: u64,
    /// Of them, those that the receiver did not take.
    pub exports_failed: u64,
    /// Capabilities that are not there and something needs.
    pub lacking: Arc<[String]>,
}

/// The forms that the text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, version 0.0.4.
    Plain,
}

impl Form {
    /// Returns the form for those who accept this.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Plain
        }
    }

    /// Returns its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Returns the text.
///
/// # Errors
///
/// Never, but for one that the encoder makes up.
pub fn render(fleet: Arc<Fleet>, own: Own, form: Form) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("memtrace");
    registry.register_collector(Box::new(Told { fleet, own }));
    let mut page = String::new();
    match form {
        Form::OpenMetrics => text::encode(&mut page, &registry)?,
        Form::Plain => prometheus_text::encode(&mut page, &registry)?,
    }
    Ok(page)
}

#[derive(Debug)]
struct Told {
    fleet: Arc<Fleet>,
    own: Own,
}

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in families() {
            let name = match family.group {
                Some(group) => format!("{}_{}", group.prefix(), family.name),
                None => family.name.to_owned(),
            };
            let unit = match family.unit {
                Unit::Bytes => Some(registry::Unit::Bytes),
                Unit::Seconds => Some(registry::Unit::Seconds),
                Unit::Ratio => Some(registry::Unit::Other("ratio".to_owned())),
                Unit::Things(_) => None,
            };
            let kind = match family.kind {
                Instrument::Gauge => MetricType::Gauge,
                Instrument::Counter => MetricType::Counter,
            };
            let mut series = encoder.encode_descriptor(&name, &family.help, unit.as_ref(), kind)?;
            for Point { labels, value } in family.points(&self.fleet, &self.own) {
                let one = series.encode_family(&labels)?;
                match (family.kind, value) {
                    (Instrument::Gauge, Value::Whole(count)) => {
                        ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(one)
                    }
                    (Instrument::Gauge, Value::Real(number)) => ConstGauge::new(number).encode(one),
                    (Instrument::Counter, Value::Whole(count)) => {
                        ConstCounter::new(count).encode(one)
                    }
                    (Instrument::Counter, Value::Real(number)) => {
                        ConstCounter::new(number).encode(one)
                    }
                }?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
