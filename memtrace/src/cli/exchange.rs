//! One request by HTTP, and its answer.

use anyhow::{Error, Result};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Request, Response,
    body::{Body, Bytes},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends a request on a connection of its own and returns the answer, of at most so many bytes.
pub(super) async fn exchange<B>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<B>,
    most_bytes: usize,
) -> Result<Response<Bytes>>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, most_bytes).collect().await.map_err(Error::from_boxed)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}
