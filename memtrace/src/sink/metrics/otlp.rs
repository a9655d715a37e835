//! The same figures for OpenTelemetry: instruments that the SDK reads whenever it sends. Sending is not here.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

use super::{
    Own,
    families::{Family, Instrument, Unit, Value, families},
};
use crate::model::fleet::Fleet;

/// Gives a meter every family. Each is told as `told` returns it at that time.
///
/// Where a receiver makes Prometheus' names of these by OpenTelemetry's rules, they are those of the page.
pub fn register(
    meter: &Meter,
    told: impl Fn() -> (Arc<Fleet>, Own) + Clone + Send + Sync + 'static,
) {
    for family in families() {
        let name = match family.group {
            Some(group) => format!("memtrace.{}.{}", group.prefix(), family.name),
            None => format!("memtrace.{}", family.name),
        };
        let (help, unit) = (family.help.clone(), ucum(family.unit));
        let (kind, is_whole, told) = (family.kind, family.is_whole(), told.clone());
        // Each builder is of a type of its own.
        macro_rules! instrument {
            ($builder:ident, $value:ident) => {{
                let built = meter.$builder(name).with_description(help).with_unit(unit);
                built.with_callback(move |to| observe(&family, &told(), to, Value::$value)).build();
            }};
        }
        match (kind, is_whole) {
            (Instrument::Gauge, true) => instrument!(u64_observable_gauge, whole),
            (Instrument::Gauge, false) => instrument!(f64_observable_gauge, real),
            (Instrument::Counter, true) => instrument!(u64_observable_counter, whole),
            (Instrument::Counter, false) => instrument!(f64_observable_counter, real),
        }
    }
}

fn observe<T>(
    family: &Family,
    (fleet, own): &(Arc<Fleet>, Own),
    observer: &dyn AsyncInstrument<T>,
    as_is: fn(Value) -> T,
) {
    for point in family.points(fleet, own) {
        let attributes: Vec<KeyValue> =
            point.labels.iter().map(|(name, value)| attribute(name, value)).collect();
        observer.observe(as_is(point.value), &attributes);
    }
}

impl Value {
    const fn whole(self) -> u64 {
        match self {
            Self::Whole(count) => count,
            Self::Real(number) => number as u64,
        }
    }

    const fn real(self) -> f64 {
        match self {
            Self::Whole(count) => count as f64,
            Self::Real(number) => number,
        }
    }
}

/// Returns a label under the name that OpenTelemetry's semantic conventions have for it, if any.
fn attribute(name: &'static str, value: &str) -> KeyValue {
    let name = match name {
        "pid" => {
            let pid = value.parse::<i64>();
            return pid.map_or_else(
                |_| KeyValue::new("process.pid", value.to_owned()),
                |pid| KeyValue::new("process.pid", pid),
            );
        }
        // What `ps` and `top` show of a process.
        "comm" => "process.title",
        "container" => "container.id",
        "pod" => "k8s.pod.uid",
        other => other,
    };
    KeyValue::new(name, value.to_owned())
}

/// Returns a unit as OpenTelemetry writes it, after UCUM.
fn ucum(unit: Unit) -> String {
    match unit {
        Unit::Bytes => "By".to_owned(),
        Unit::Seconds => "s".to_owned(),
        Unit::Ratio => "1".to_owned(),
        Unit::Things(name) => format!("{{{name}}}"),
    }
}
