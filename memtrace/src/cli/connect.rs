//! Asks a daemon for what it knows, instead of looking for oneself.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use http_body_util::Empty;
use hyper::{
    Request, Response,
    body::Bytes,
    header::{AUTHORIZATION, CONNECTION, HOST},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{
    exchange::exchange,
    failure::Failure,
    serve::{Listen, read_token},
};
use crate::model::{report::Report, top::Listing};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer has so many bytes at most.
const MOST_BYTES: usize = 256 << 20;

/// Which daemon is asked, if one is.
#[derive(Clone, Debug, Args)]
pub(super) struct Connect {
    /// Asks the daemon (`memtrace serve`) at ADDRESS:PORT or unix:PATH, and looks at nothing itself.
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<Listen>,
    /// A file with the token that the daemon wants.
    #[arg(long, value_name = "FILE", requires = "connect")]
    token_file: Option<PathBuf>,
}

impl Connect {
    /// Returns the daemon, if one was named.
    pub(super) fn daemon(&self) -> Result<Option<Daemon>, Failure> {
        let Some(address) = self.connect.clone() else { return Ok(None) };
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        Ok(Some(Daemon { address, token }))
    }
}

/// A daemon that runs.
#[derive(Debug)]
pub(super) struct Daemon {
    address: Listen,
    token: Option<String>,
}

/// What the daemon answers when it does not do it.
#[derive(Debug, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Problem {
    pub(super) status: u16,
    detail: String,
}

impl Daemon {
    /// Asks for every process in short.
    pub(super) async fn listing(&self) -> Result<Listing> {
        self.get("/api/v1/processes").await
    }

    /// Asks for the report of a process.
    pub(super) async fn report(&self, pid: u32) -> Result<Report> {
        self.get(&format!("/api/v1/processes/{pid}")).await
    }

    /// Errors: a [`Problem`] where the daemon says what is wrong.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = timeout(PATIENCE, self.ask(path))
            .await
            .map_err(|_| anyhow!("it does not answer"))
            .flatten()
            .with_context(|| format!("cannot ask the daemon at {}", self.address))?;
        let (status, body) = (answer.status(), answer.body());
        if status.is_success() {
            return serde_json::from_slice(body).context("cannot read the daemon's answer");
        }
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => Err(problem.into()),
            Err(_) => bail!("{} answers with {status}: it is no daemon of memtrace", self.address),
        }
    }

    async fn ask(&self, path: &str) -> Result<Response<Bytes>> {
        let mut request = Request::get(path).header(HOST, "memtrace").header(CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new())?;
        match &self.address {
            Listen::Tcp(address) => {
                exchange(TcpStream::connect(address).await?, request, MOST_BYTES).await
            }
            Listen::Unix(socket) => {
                exchange(UnixStream::connect(socket).await?, request, MOST_BYTES).await
            }
        }
    }
}

/// Says what someone can do who asked a daemon in vain.
pub(super) fn explain(error: anyhow::Error) -> Failure {
    let hint = match error.downcast_ref::<Problem>().map(|problem| problem.status) {
        Some(401) => "name the file with the daemon's token: --token-file FILE",
        Some(503) => {
            "it walks the largest processes first, within its budget: ask later, or leave --connect out"
        }
        Some(_) => "leave --connect out to look for yourself",
        None => "`memtrace serve` listens on 127.0.0.1:9477 unless it is configured otherwise",
    };
    Failure::new(Failure::FAILED, error, hint)
}
