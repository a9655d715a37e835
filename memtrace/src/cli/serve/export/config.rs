//! Where metrics are sent: a table of the daemon's configuration.

use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

use anyhow::anyhow;
use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::cli::{Failure, serve::config};

/// What is configured of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::cli::serve) struct Otlp {
    /// Where to; nothing is sent without.
    #[serde(deserialize_with = "endpoint")]
    pub(in crate::cli::serve) endpoint: Option<Uri>,
    /// How often.
    #[serde(deserialize_with = "config::time")]
    pub(in crate::cli::serve) interval: Duration,
    /// A file with the headers of each request.
    pub(in crate::cli::serve) headers_file: Option<PathBuf>,
}

impl Default for Otlp {
    fn default() -> Self {
        Self { endpoint: None, interval: Duration::from_secs(60), headers_file: None }
    }
}

impl Otlp {
    /// Checks what fields say together.
    pub(in crate::cli::serve) fn check(&self) -> Result<(), String> {
        if self.interval < Duration::from_secs(1) {
            return Err("otlp.interval: must be 1s at least".to_owned());
        }
        Ok(())
    }

    /// Reads the headers of each request. Their values are secrets, which no error tells.
    pub(in crate::cli::serve) fn headers(&self) -> Result<HashMap<String, String>, Failure> {
        const HINT: &str = "each line of it is a header, such as `Authorization: Bearer TOKEN`";
        let Some(path) = &self.headers_file else { return Ok(HashMap::new()) };
        let text = fs::read_to_string(path).map_err(|error| Failure::unread(path, &error, HINT))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let headers = lines.map(|(at, line)| {
            header(line).ok_or_else(|| {
                let error = anyhow!("{}: line {} is no header", path.display(), at + 1);
                Failure::new(Failure::USAGE, error, HINT)
            })
        });
        headers.collect()
    }
}

fn header(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim().parse::<HeaderName>().ok()?;
    HeaderValue::from_str(value.trim()).ok()?;
    // The SDK decodes percent signs, as it does those of its environment variable.
    Some((name.to_string(), value.trim().replace('%', "%25")))
}

/// Reads an address; the path is that of the specification where none is named.
fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uri>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let uri = text.parse::<Uri>().ok();
    let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
    let Some(uri) = uri else {
        return Err(D::Error::custom(
            "must be http://HOST:PORT: there is no TLS, put a collector before a receiver elsewhere",
        ));
    };
    if uri.path() != "/" {
        return Ok(Some(uri));
    }
    let whole = format!("{}/v1/metrics", text.trim_end_matches('/'));
    whole.parse().map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_specification_where_none_is_named() {
        for (text, expected) in [
            ("http://[::1]:4318", "http://[::1]:4318/v1/metrics"),
            ("http://collector/", "http://collector/v1/metrics"),
            ("http://here:1/api/otlp?x=y", "http://here:1/api/otlp?x=y"),
        ] {
            let otlp: Otlp = toml::from_str(&format!("endpoint = \"{text}\"")).expect(text);
            assert_eq!(otlp.endpoint, expected.parse().ok(), "{text}");
        }
        for wrong in ["https://collector:4318", "collector:4318", "http://", "/v1/metrics", ""] {
            let error =
                toml::from_str::<Otlp>(&format!("endpoint = \"{wrong}\"")).expect_err(wrong);
            assert!(error.message().contains("must be http://HOST:PORT"), "{wrong}: {error}");
        }
    }

    #[test]
    fn headers_are_read_line_by_line() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let otlp = Otlp { headers_file: Some(file.path().to_owned()), ..Otlp::default() };
        fs::write(&file, "Authorization: Bearer a:b\n\nx-scope: 1 \n").expect("it is written");
        let headers = otlp.headers().expect("they are right");
        assert_eq!(headers["authorization"], "Bearer a:b");
        assert_eq!((headers["x-scope"].as_str(), headers.len()), ("1", 2));
        fs::write(&file, "x: y\nBearer secret\n").expect("it is written");
        let error = otlp.headers().expect_err("it is wrong").sentence();
        assert!(error.contains("line 2 is no header") && !error.contains("secret"), "{error}");
    }
}
