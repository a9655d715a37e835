//! A receiver of OTLP, made of OpenTelemetry's own definition of the protocol, and one that is not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Metric, NumberDataPoint, metric::Data, number_data_point,
    },
};
use prost::Message as _;

use crate::{
    daemon as start,
    daemon::{Daemon, Heap},
    daemon_with,
};

/// Of a request: its head and what it brings.
type Export = (String, ExportMetricsServiceRequest);

/// A series: its name and labels, as Prometheus has them.
type Series = (String, BTreeMap<String, String>);

/// Receives on an address until nobody asks for more.
fn receive(listener: TcpListener) -> Receiver<Export> {
    let (sender, exports) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let export = take(stream.expect("a connection"));
            if sender.send(export).is_err() {
                return;
            }
        }
    });
    exports
}

fn take(mut stream: TcpStream) -> Export {
    let mut reader = BufReader::new(stream.try_clone().expect("another of it"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("text") > 0, "it ends in the head: {head}");
    }
    let head = head.to_lowercase();
    let len = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; len.and_then(|len| len.parse().ok()).expect("a length")];
    reader.read_exact(&mut body).expect("a body");
    let request = ExportMetricsServiceRequest::decode(body.as_slice()).expect("protobuf");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("it reads");
    (head, request)
}

fn text(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(_)
        | Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_) => None,
    };
    let pair =
        |attribute: &KeyValue| (attribute.key.clone(), text(attribute).expect("text or a number"));
    attributes.iter().map(pair).collect()
}

/// Returns the name that a metric has on the page, by OpenTelemetry's rules; and its points.
fn as_on_the_page(metric: &Metric) -> (String, &[NumberDataPoint]) {
    let unit = match metric.unit.as_str() {
        "By" => "_bytes",
        "s" => "_seconds",
        "1" => "_ratio",
        things => {
            assert!(things.starts_with('{') && things.ends_with('}'), "{things}");
            ""
        }
    };
    let (total, points) = match metric.data.as_ref().expect("points") {
        Data::Gauge(gauge) => ("", &gauge.data_points),
        Data::Sum(sum) => {
            assert_eq!(sum.aggregation_temporality, AggregationTemporality::Cumulative as i32);
            assert!(sum.is_monotonic, "{}", metric.name);
            ("_total", &sum.data_points)
        }
        Data::Histogram(_) | Data::ExponentialHistogram(_) | Data::Summary(_) => {
            panic!("{} is neither a gauge nor a sum", metric.name)
        }
    };
    (format!("{}{unit}{total}", metric.name.replace('.', "_")), points)
}

fn value(point: &NumberDataPoint) -> f64 {
    match point.value.expect("a value") {
        number_data_point::Value::AsInt(count) => count as f64,
        number_data_point::Value::AsDouble(number) => number,
    }
}

/// Returns all series of an export, with their values.
fn series(request: &ExportMetricsServiceRequest) -> BTreeMap<Series, f64> {
    let metrics = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let mut all = BTreeMap::new();
    for metric in metrics.flat_map(|scope| &scope.metrics) {
        let (name, points) = as_on_the_page(metric);
        for point in points {
            let labels = text(&point.attributes).into_iter().map(|(key, value)| {
                let label = match key.as_str() {
                    "process.pid" => "pid",
                    "process.title" => "comm",
                    "container.id" => "container",
                    "k8s.pod.uid" => "pod",
                    other => other,
                };
                (label.to_owned(), value)
            });
            let before = all.insert((name.clone(), labels.collect()), value(point));
            assert_eq!(before, None, "{name} has two values of one series");
        }
    }
    all
}

/// Returns all series of a page.
fn on_page(page: &str) -> BTreeMap<Series, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| {
            let (name, value) = label.split_once("=\"")?;
            Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        ((name.to_owned(), labels.collect()), value.parse().expect("a number"))
    });
    series.collect()
}

pub(crate) fn the_same_figures() {
    let heap = Heap::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let exports = receive(listener);
    let folder = tempfile::tempdir().expect("a folder");
    let headers = folder.path().join("headers");
    fs::write(&headers, "Authorization: Bearer 01%412\n").expect("it can be written");
    let before = nanoseconds(SystemTime::now());
    let daemon = daemon_with(&format!(
        "[otlp]\nendpoint = \"http://{address}\"\ninterval = \"1s\"\nheaders_file = {headers:?}\n"
    ));
    let report = daemon.report_of(&heap);
    let pid = heap.pid().to_string();
    let is_of_heap = |((_, labels), _): &(&Series, &f64)| labels.get("pid") == Some(&pid);
    let freed = "memtrace_process_freed_not_reclaimed_allocator_bytes";
    let is_told = |all: &BTreeMap<Series, f64>| {
        all.iter().filter(is_of_heap).any(|((name, _), _)| name == freed)
    };
    // It counts by then, and the machine has lost something.
    daemon.wait_until("counts", |daemon| {
        let all = on_page(&daemon.get("/metrics").1);
        let counts = all.keys().any(|(name, _)| name == "memtrace_machine_detached_bytes_total");
        (counts && is_told(&all)).then_some(())
    });
    // What was sent before may be older than that.
    while exports.try_recv().is_ok() {}
    let (head, request) = exports.recv_timeout(Duration::from_secs(30)).expect("an export");
    let (sent, page) = (series(&request), on_page(&daemon.get("/metrics").1));

    // The program stands still: each of its figures is the same, and that of the report.
    let of_heap = |all: &BTreeMap<Series, f64>| -> BTreeMap<Series, f64> {
        all.iter().filter(is_of_heap).map(|(series, value)| (series.clone(), *value)).collect()
    };
    assert_eq!(of_heap(&sent), of_heap(&page));
    let in_report = &report["processes"][0]["memory"]["freed_not_reclaimed"]["allocator"];
    let found = sent.iter().filter(is_of_heap).find(|((name, _), _)| name == freed);
    assert_eq!(found.map(|(_, value)| *value), in_report.as_f64());
    // Each family is there, under the name that it has on the page. What is told of other processes changes.
    let names = |all: &BTreeMap<Series, f64>| -> BTreeSet<String> {
        all.keys().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&sent), names(&page));
    let of_all = |all: &BTreeMap<Series, f64>| -> BTreeSet<Series> {
        all.keys().filter(|(_, labels)| labels.is_empty()).cloned().collect()
    };
    assert_eq!(of_all(&sent), of_all(&page));

    assert!(head.starts_with("post /v1/metrics http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    assert!(head.contains("authorization: bearer 01%412\r\n"), "{head}");
    let resource = request.resource_metrics[0].resource.clone().expect("it says who it is");
    let resource = text(&resource.attributes);
    assert_eq!(resource["service.name"], "memtrace");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("it has a name");
    assert_eq!(resource["host.name"], host.trim());
    let now = nanoseconds(SystemTime::now());
    for metric in &request.resource_metrics[0].scope_metrics[0].metrics {
        for point in as_on_the_page(metric).1 {
            let (since, at) = (point.start_time_unix_nano, point.time_unix_nano);
            assert!(since == 0 || (before <= since && since <= at), "{}: {point:?}", metric.name);
            assert!(at <= now, "{}: {point:?}", metric.name);
            assert!(since > 0 || matches!(metric.data, Some(Data::Gauge(_))), "{}", metric.name);
        }
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).expect("it is later");
    u64::try_from(since.as_nanos()).expect("it is not that late")
}

pub(crate) fn nobody_there() {
    const FAILS: &str = "the receiver of OTLP does not take metrics";
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let address: SocketAddr = address.expect("a port");
    let daemon_of = |address| {
        daemon_with(&format!("[otlp]\nendpoint = \"http://{address}\"\ninterval = \"1s\"\n"))
    };
    let mut daemon = daemon_of(address);
    let told = |daemon: &Daemon, name: &str| daemon.metric(&format!("memtrace_otlp_{name}_total"));
    let failed = |daemon: &Daemon, times: f64| {
        told(daemon, "exports_failed").filter(|failed| *failed >= times)
    };
    daemon.wait_until("an attempt", |daemon| failed(daemon, 1.0));
    let resident = daemon.resident();
    daemon.wait_until("more attempts", |daemon| failed(daemon, 4.0));
    let grown = daemon.resident().saturating_sub(resident);
    assert!(grown < 4 << 20, "{} KiB more after 3 attempts", grown >> 10);
    assert_eq!(told(&daemon, "exports"), told(&daemon, "exports_failed"));
    assert_eq!(daemon.said(FAILS), 1, "it is said once");
    // It comes.
    let exports = receive(TcpListener::bind(address).expect("nobody has it"));
    exports.recv_timeout(Duration::from_secs(30)).expect("an export");
    daemon.wait_until("success", |daemon| {
        (told(daemon, "exports") > told(daemon, "exports_failed")).then_some(())
    });
    daemon
        .wait_until("word of it", |daemon| (daemon.said("takes metrics again") == 1).then_some(()));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0));

    // One that takes connections and says nothing holds up nothing but the end, and that not for long.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut daemon = daemon_of(silent.local_addr().expect("an address"));
    daemon.wait_until("an attempt", |daemon| failed(daemon, 1.0));
    let started = Instant::now();
    assert_eq!(daemon.get("/healthz").0, 200);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    // Nothing is sent where nothing is configured.
    let daemon = start();
    assert_eq!(told(&daemon, "exports"), Some(0.0));
}
