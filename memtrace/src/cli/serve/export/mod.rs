//! Sends the metrics by OTLP: protobuf in plain HTTP, on a thread of the SDK. Which metrics there are is not here.
//!
//! Every time all figures are sent as they are then, and what was not taken is not kept: a receiver that is not
//! there costs an attempt in each interval.

mod config;

use std::{
    collections::HashMap,
    future::{self, Future},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::header::HOST;
use nix::sys::utsname::uname;
use opentelemetry::{KeyValue, metrics::MeterProvider as _};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    MetricExporter, Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    metrics::{Instrument, InstrumentKind, PeriodicReader, SdkMeterProvider, Stream},
};
use tokio::{net::TcpStream, sync::watch, time::timeout};

pub(super) use self::config::Otlp;
use crate::{
    cli::{exchange::exchange, runtime},
    model::fleet::{Fleet, Limits},
    sink::metrics::{Own, otlp},
};

/// How long a receiver may take for everything.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of an answer so much is read.
const ANSWER_BYTES: usize = 64 << 10;
/// More paths by which memory leaves are not told apart.
const PATHS: usize = 16;

/// What may be left out, and programs, as far as paths do not leave room for them.
const LABELS: usize = 3;

/// How often metrics were sent, and how often in vain.
#[derive(Debug, Default)]
pub(super) struct Tally {
    times: AtomicU64,
    failed: AtomicU64,
    /// The last time was in vain.
    fails: AtomicBool,
}

/// What goes on until it is stopped.
pub(super) struct Export(SdkMeterProvider);

impl Export {
    /// Starts it, where an endpoint is configured. `headers` are sent with each request.
    pub(super) fn start(
        otlp: &Otlp,
        headers: HashMap<String, String>,
        limits: Limits,
        told: watch::Receiver<(Arc<Fleet>, Own)>,
        tally: Arc<Tally>,
    ) -> Result<Option<Self>> {
        let Some(endpoint) = &otlp.endpoint else { return Ok(None) };
        let exporter = MetricExporter::builder()
            .with_http()
            .with_http_client(Client { tally })
            .with_headers(headers)
            .with_retry_policy(RetryPolicy::disabled())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.to_string())
            .with_timeout(PATIENCE)
            .build()
            .context("cannot send metrics by OTLP")?;
        let provider = SdkMeterProvider::builder()
            .with_reader(PeriodicReader::builder(exporter).with_interval(otlp.interval).build())
            .with_resource(resource())
            .with_view(move |instrument| room(instrument, limits))
            .build();
        let meter = provider.meter("memtrace");
        otlp::register(&meter, move || told.borrow().clone());
        Ok(Some(Self(provider)))
    }

    /// Sends the last figures, and ends: within 5 s, by the SDK.
    pub(super) fn stop(self) {
        // Why it fails was said when it did.
        let _ = self.0.shutdown();
    }
}

/// Has the SDK keep as many series as there may be, not one more: it takes the room for them at once.
fn room(instrument: &Instrument, limits: Limits) -> Option<Stream> {
    let is_counter = instrument.kind() == InstrumentKind::ObservableCounter;
    let paths = if is_counter { PATHS } else { 1 };
    let named = if instrument.name().starts_with("memtrace.process.") {
        limits.processes * 3
    } else if instrument.name().starts_with("memtrace.cgroup.") {
        limits.cgroups
    } else {
        LABELS
    };
    Stream::builder().with_cardinality_limit((named * paths).max(1)).build().ok()
}

/// Says who sends: beside what the environment says (`OTEL_RESOURCE_ATTRIBUTES`).
fn resource() -> Resource {
    let host = uname().ok().map(|names| names.nodename().to_string_lossy().into_owned());
    Resource::builder()
        .with_service_name("memtrace")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(host.map(|host| KeyValue::new("host.name", host)))
        .build()
}

impl Tally {
    /// Returns how often metrics were sent, and how often in vain.
    pub(super) fn read(&self) -> (u64, u64) {
        (self.times.load(Relaxed), self.failed.load(Relaxed))
    }

    /// Takes how it went; what goes wrong is told once, not each time.
    fn take(&self, result: &Result<Response<Bytes>>) {
        let why = match result {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(format!("{error:#}")),
        };
        self.times.fetch_add(1, Relaxed);
        self.failed.fetch_add(u64::from(why.is_some()), Relaxed);
        let failed_before = self.fails.swap(why.is_some(), Relaxed);
        match why {
            Some(why) if !failed_before => {
                log::warn!("the receiver of OTLP does not take metrics: {why}");
            }
            None if failed_before => log::info!("the receiver of OTLP takes metrics again"),
            Some(_) | None => {}
        }
    }
}

/// Sends requests from the SDK's thread, which does nothing else and may wait.
#[derive(Debug)]
struct Client {
    tally: Arc<Tally>,
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let result = send(request);
        self.tally.take(&result);
        Box::pin(future::ready(result.map_err(Into::into)))
    }
}

fn send(request: Request<Bytes>) -> Result<Response<Bytes>> {
    let runtime = runtime()?;
    let answer = runtime.block_on(async {
        timeout(PATIENCE, deliver(request)).await.context("it takes too long")?
    });
    // A name may still be looked up: nobody waits for it.
    runtime.shutdown_background();
    answer
}

async fn deliver(request: Request<Bytes>) -> Result<Response<Bytes>> {
    let (mut head, body) = request.into_parts();
    let host = head.uri.host().context("the endpoint has no host")?.to_owned();
    let port = head.uri.port_u16().unwrap_or(80);
    let authority = head.uri.authority().map_or(host.as_str(), |authority| authority.as_str());
    head.headers.insert(HOST, authority.parse()?);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port))
        .await
        .with_context(|| format!("cannot connect to {host}:{port}"))?;
    exchange(stream, Request::from_parts(head, Full::new(body)), ANSWER_BYTES).await
}
