//! What a comparison reads of a report that was kept: the fields that it needs and no others, so that
//! the reports of a newer memtrace, which have more, are read as well.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::report::{Evidence, Report};

/// A report as it was kept.
#[derive(Clone, Debug, Deserialize)]
pub struct Kept {
    pub(super) host: KeptHost,
    pub(super) window: KeptWindow,
    pub(super) processes: Vec<KeptProcess>,
}

/// Why something is no report that can be compared.
#[derive(Debug, thiserror::Error)]
pub enum NotAReport {
    /// It is not JSON, or lacks what every report has.
    #[error("it is no JSON report of memtrace: {0}")]
    Json(#[from] serde_json::Error),
    /// It is something else.
    #[error("it is no report, but {0:?}")]
    OtherSchema(String),
    /// Its fields may mean something else.
    #[error("it is of the form {0:?}, and this memtrace knows {known:?} only", known = super::super::report::SCHEMA)]
    OtherMajor(String),
}

impl Kept {
    /// Reads a report.
    ///
    /// # Errors
    ///
    /// When it is not JSON, or not a report of this major form.
    pub fn decode(json: &[u8]) -> Result<Self, NotAReport> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        // What another form has where is not known: its name comes first.
        let Head { schema } = serde_json::from_slice(json)?;
        match schema.strip_prefix("memtrace.report/").map(|version| version.split('.').next()) {
            Some(Some("1")) => Ok(serde_json::from_slice(json)?),
            Some(_) => Err(NotAReport::OtherMajor(schema)),
            None => Err(NotAReport::OtherSchema(schema)),
        }
    }

    /// Takes a report that was just made.
    ///
    /// # Errors
    ///
    /// When it would not be read again from a file either.
    pub fn of(report: &Report) -> Result<Self, NotAReport> {
        Ok(serde_json::from_value(serde_json::to_value(report)?)?)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct KeptHost {
    pub(super) kernel: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct KeptWindow {
    pub(super) evidence: Evidence,
    pub(super) emitted: u64,
    pub(super) complete: bool,
    pub(super) probes: Vec<KeptProbe>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct KeptProbe {
    pub(super) state: String,
}

impl KeptWindow {
    /// Tells a traced window from a single look: of that no path says anything.
    pub(super) fn was_traced(&self) -> bool {
        self.emitted > 0 || self.probes.iter().any(|probe| probe.state == "attached")
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct KeptProcess {
    pub(super) tgid: u32,
    pub(super) start_time: u64,
    pub(super) comm: String,
    pub(super) exe: Option<String>,
    pub(super) state: String,
    pub(super) memory: KeptMemory,
    pub(super) reclaimed: KeptReclaimed,
    pub(super) allocators: Vec<KeptAllocator>,
    pub(super) unwalked: Vec<String>,
    pub(super) findings: Vec<KeptFinding>,
    pub(super) regions: Vec<KeptRegion>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct KeptMemory {
    pub(super) mapped: Option<u64>,
    pub(super) resident: Option<u64>,
    pub(super) live: Option<u64>,
    pub(super) freed_not_reclaimed: KeptFreed,
    pub(super) reserved: Option<u64>,
    pub(super) swapped: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct KeptFreed {
    pub(super) total: Option<u64>,
    pub(super) allocator: Option<u64>,
    pub(super) lazy_free: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct KeptReclaimed {
    pub(super) by_path: BTreeMap<String, KeptPath>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct KeptPath {
    pub(super) calls: u64,
    pub(super) requested: Option<u64>,
    pub(super) zapped: Option<u64>,
    pub(super) freed: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct KeptAllocator {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) evidence: String,
    pub(super) system: u64,
    pub(super) in_use: u64,
    pub(super) free: BTreeMap<String, u64>,
    pub(super) free_resident: Option<u64>,
    pub(super) trimmable: Option<u64>,
    pub(super) arenas: Vec<KeptArena>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct KeptArena {
    pub(super) address: String,
    pub(super) system: u64,
    pub(super) free: u64,
    pub(super) free_resident: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct KeptFinding {
    pub(super) id: String,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct KeptRegion {
    pub(super) start: String,
    pub(super) kind: String,
    pub(super) name: Option<String>,
    pub(super) mapped: u64,
    pub(super) resident: Option<u64>,
    pub(super) live: Option<u64>,
    pub(super) free_resident: Option<u64>,
    pub(super) lazy_free: Option<u64>,
}
