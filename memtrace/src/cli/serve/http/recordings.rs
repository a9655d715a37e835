//! Recordings: to start, to stop, to fetch, to remove.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{fs::File, sync::oneshot};
use tokio_util::io::ReaderStream;

use super::{
    problem::Problem,
    routes::{App, Pid, Routes, Shared, process},
};
use crate::{
    cli::{
        duration,
        serve::recordings::{Recording, Refused},
    },
    model::top::Id,
};

/// How long is recorded where nobody says.
const DURATION: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);

/// What is asked of whom the recordings are, and where the answer goes.
pub(in crate::cli::serve) enum Order {
    Start {
        id: Id,
        comm: String,
        duration: Duration,
        answer: Answer<Recording>,
    },
    Stop {
        name: String,
        answer: Answer<()>,
    },
    Remove {
        name: String,
        answer: Answer<()>,
    },
    /// Opens its trace.
    Open {
        name: String,
        answer: Answer<std::fs::File>,
    },
}

type Answer<T> = oneshot::Sender<Result<T, Refused>>;

/// What answers to those who bear the token.
pub(super) fn routes() -> Routes<5> {
    [
        ("/api/v1/processes/{pid}/recordings", post(start)),
        ("/api/v1/recordings", get(list)),
        ("/api/v1/recordings/{id}", get(one).delete(remove)),
        ("/api/v1/recordings/{id}/stop", post(stop)),
        ("/api/v1/recordings/{id}/trace", get(trace)),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HowLong {
    duration: Option<String>,
}

async fn start(
    State(shared): App,
    pid: Pid,
    how_long: Result<Query<HowLong>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(HowLong { duration: text }) = how_long
        .map_err(|_| Problem::bad("the one thing to be told is duration, such as ?duration=30s"))?;
    let duration = text.map_or(Ok(DURATION), |text| duration(&text));
    let duration = duration.map_err(|why| Problem::bad(&format!("duration: {why}")))?;
    if duration > LONGEST {
        return Err(Problem::bad("duration: must be 1h at most"));
    }
    let process = process(&shared, pid)?;
    let (id, comm) = (process.id, process.comm);
    let recording = order(&shared, |answer| Order::Start { id, comm, duration, answer }).await?;
    let location = [(header::LOCATION, format!("/api/v1/recordings/{}", recording.id))];
    Ok((StatusCode::CREATED, location, Json(recording)).into_response())
}

async fn list(State(shared): App) -> Json<Value> {
    let recordings = shared.recordings.borrow().clone();
    Json(json!({"schema": "memtrace.recordings/1", "recordings": &*recordings}))
}

async fn one(State(shared): App, Path(name): Path<String>) -> Result<Json<Recording>, Problem> {
    let recordings = shared.recordings.borrow().clone();
    let found = recordings.iter().find(|recording| recording.id == name);
    Ok(Json(found.ok_or(Refused::Unknown)?.clone()))
}

async fn stop(State(shared): App, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    order(&shared, |answer| Order::Stop { name, answer }).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn remove(State(shared): App, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    order(&shared, |answer| Order::Remove { name, answer }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn trace(State(shared): App, Path(name): Path<String>) -> Result<Response, Problem> {
    let file = order(&shared, |answer| Order::Open { name: name.clone(), answer }).await?;
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.mtr\"")),
    ];
    let body = Body::from_stream(ReaderStream::new(File::from_std(file)));
    Ok((head, body).into_response())
}

/// Gives an order and waits for the answer.
async fn order<T>(shared: &Shared, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, Problem> {
    let (answer, answered) = oneshot::channel();
    let gone = || Problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending".into());
    shared.orders.send(order(answer)).await.map_err(|_| gone())?;
    Ok(answered.await.map_err(|_| gone())??)
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Unknown | Refused::Gone => StatusCode::NOT_FOUND,
            Refused::Off | Refused::Already | Refused::Ended | Refused::Running => {
                StatusCode::CONFLICT
            }
            Refused::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Refused::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, refused.to_string())
    }
}
