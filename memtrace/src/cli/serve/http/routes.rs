//! What is answered to which request.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::{
    problem::Problem,
    recordings::{self, Order},
    token,
};
use crate::{
    cli::{
        look,
        serve::{privileges::Use, recordings::Recording},
    },
    model::{
        fleet::Fleet,
        report::Report,
        top::{Counting, Listing, Process, Snapshot},
    },
    sink::{
        html,
        metrics::{self, Form, Own},
    },
};

/// What requests are answered from.
pub(in crate::cli::serve) struct Shared {
    pub(in crate::cli::serve) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What is told of the machine, and of the daemon itself; as last made.
    pub(in crate::cli::serve) told: watch::Receiver<(Arc<Fleet>, Own)>,
    /// The token that requests have to bear, if any.
    pub(in crate::cli::serve) token: watch::Receiver<Option<String>>,
    pub(in crate::cli::serve) recordings: watch::Receiver<Arc<[Recording]>>,
    /// What is to be done about recordings.
    pub(in crate::cli::serve) orders: mpsc::Sender<Order>,
    /// What is switched off for want of a right, a sentence each.
    pub(in crate::cli::serve) lacking: Vec<&'static Use>,
}

/// The description of all of this.
const OPENAPI: &str = include_str!("../../../../../docs/openapi.json");
/// What it refers to.
const REPORT: &str = include_str!("../../../../../docs/report.schema.json");

pub(super) type App = State<Arc<Shared>>;
pub(super) type Pid = Result<Path<u32>, PathRejection>;

/// Paths with what answers there.
pub(super) type Routes<const N: usize> = [(&'static str, MethodRouter<Arc<Shared>>); N];

/// What answers to everyone.
fn open() -> Routes<2> {
    [("/healthz", get(|| async { "ok\n" })), ("/readyz", get(ready))]
}

/// What answers to those who bear the token.
fn with_token() -> Routes<7> {
    [
        ("/metrics", get(metrics)),
        ("/api/v1/openapi.json", get(|| async { document(OPENAPI) })),
        ("/api/v1/report.schema.json", get(|| async { document(REPORT) })),
        ("/api/v1/processes", get(processes)),
        ("/api/v1/processes/{pid}", get(report)),
        ("/api/v1/processes/{pid}/regions", get(regions)),
        ("/api/v1/processes/{pid}/page", get(page)),
    ]
}

/// Returns all routes.
pub(in crate::cli::serve) fn router(shared: Arc<Shared>) -> Router {
    let routes = |routes: &[(&str, MethodRouter<Arc<Shared>>)]| {
        let all = routes.iter().cloned();
        all.fold(Router::new(), |router, (path, method)| router.route(path, method))
            .method_not_allowed_fallback(|| async {
                Problem(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "the methods that it takes are in Allow".into(),
                )
            })
    };
    let with_token = routes(&with_token())
        .merge(routes(&recordings::routes()))
        .layer(middleware::from_fn_with_state(shared.clone(), check_token));
    routes(&open())
        .merge(with_token)
        .fallback(|| async {
            Problem::not_found("there is nothing here; docs/SERVE.md lists what there is")
        })
        .with_state(shared)
}

fn document(text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text)
}

async fn check_token(State(shared): App, request: Request, next: Next) -> Response {
    let lets_in = token::lets_in(shared.token.borrow().as_deref(), request.headers());
    if lets_in {
        return next.run(request).await;
    }
    let refusal = Problem(
        StatusCode::UNAUTHORIZED,
        "this needs the token: Authorization: Bearer TOKEN".into(),
    );
    ([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
}

/// Ready once the machine was read, and what leaves processes is counted or is known not to be. Says what
/// is switched off.
async fn ready(State(shared): App) -> Result<String, Problem> {
    let snapshot = shared.snapshots.borrow().clone();
    if snapshot.time_ns > 0 && snapshot.counting != Counting::Starting {
        let lacking = shared.lacking.iter().map(|lack| format!("{lack}\n"));
        return Ok(std::iter::once("ready\n".to_owned()).chain(lacking).collect());
    }
    Err(Problem(StatusCode::SERVICE_UNAVAILABLE, "the probes are being attached".into()))
}

async fn metrics(State(shared): App, headers: HeaderMap) -> Result<Response, Problem> {
    let (fleet, own) = shared.told.borrow().clone();
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = Form::accepted(accept.unwrap_or_default());
    let text = metrics::render(fleet, own, form)
        .map_err(|_| Problem(StatusCode::INTERNAL_SERVER_ERROR, "cannot write metrics".into()))?;
    Ok(([(header::CONTENT_TYPE, form.media_type())], text).into_response())
}

/// Every process in short.
async fn processes(State(shared): App) -> Json<Listing> {
    let snapshot = shared.snapshots.borrow().clone();
    Json(Listing::of(&snapshot))
}

/// The JSON report of a process, as the last walk found it.
async fn report(State(shared): App, pid: Pid) -> Result<Response, Problem> {
    Ok(Json(looked_at(&shared, pid)?).into_response())
}

/// Its regions alone.
async fn regions(State(shared): App, pid: Pid) -> Result<Response, Problem> {
    let report = looked_at(&shared, pid)?;
    let regions = report.processes.first().map(|process| &process.regions);
    Ok(Json(json!({"schema": report.schema, "regions": regions})).into_response())
}

/// The page of a process.
async fn page(State(shared): App, pid: Pid) -> Result<Response, Problem> {
    let page = html::render(&looked_at(&shared, pid)?, None);
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response())
}

/// Returns a process as it was last read.
pub(super) fn process(shared: &Shared, pid: Pid) -> Result<Process, Problem> {
    let Ok(Path(pid)) = pid else { return Err(Problem::bad("a PID is a number")) };
    let snapshot = shared.snapshots.borrow().clone();
    let process = snapshot.processes.iter().find(|process| process.id.tgid == pid);
    process.cloned().ok_or_else(|| Problem::not_found("there is no such process"))
}

fn looked_at(shared: &Shared, pid: Pid) -> Result<Report, Problem> {
    let process = process(shared, pid)?;
    let Some(looked) = &process.looked else {
        let detail = "it was not walked yet: the largest are first, and walk_only, walk_never and walk_budget may leave it out";
        return Err(Problem(StatusCode::SERVICE_UNAVAILABLE, detail.into()));
    };
    match &looked.report {
        Some(found) => look::report_of((**found).clone(), looked.at_ns)
            .map_err(|error| Problem(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))),
        None => Err(Problem(
            StatusCode::FORBIDDEN,
            looked.why_not.clone().unwrap_or_else(|| "it cannot be looked at".to_owned()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let described: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let mut described: Vec<&String> =
            described["paths"].as_object().expect("paths").keys().collect();
        let all = (open(), with_token(), recordings::routes());
        let routes = all.0.iter().chain(&all.1).chain(&all.2);
        let mut routes: Vec<&str> = routes.map(|(path, _)| *path).collect();
        described.sort();
        routes.sort_unstable();
        assert_eq!(described, routes);
    }
}
