//! Processes and address spaces as they begin and end.

use memtrace_common::{Exec, Fork, MmEnd, Path, TaskSeed};

use super::{
    Model, SpaceId,
    change::What,
    process::{FaultCounts, Process},
    space::Layout,
    text,
};

/// So many of the address spaces that ended last are looked at again.
pub(super) const WATCHED_ENDS: usize = 256;

/// Exited processes beyond this many keep their figures but not their regions.
pub(super) const KEPT_REGION_MAPS: usize = 1000;

/// `CLONE_VM` (include/uapi/linux/sched.h).
pub(super) const CLONE_VM: u64 = 0x100;

impl Model {
    /// Adds a process that was there when tracing began, unless it is known.
    pub(super) fn seed(&mut self, seed: &TaskSeed) {
        if self.by_tgid.contains_key(&seed.header.tgid) {
            return;
        }
        let space = self.space_id(seed.header.mm);
        self.spaces[space.0].layout = Layout::from(seed);
        self.add_process(seed.header.tgid, seed.start_ns, vec![space]);
    }

    pub(super) fn add_process(
        &mut self,
        tgid: u32,
        start_ns: u64,
        spaces: Vec<SpaceId>,
    ) -> &mut Process {
        let at = self.processes.len();
        self.by_tgid.insert(tgid, at);
        self.processes.push(Process {
            tgid,
            start_ns,
            comm: String::new(),
            exe: None,
            exit_status: None,
            spaces,
            faults: FaultCounts::default(),
        });
        &mut self.processes[at]
    }

    pub(super) fn fork(&mut self, fork: &Fork) -> What {
        let &Fork { header, child_tgid, followed, parent_mm, .. } = fork;
        if followed != 0 {
            let parent = self.by_tgid.get(&header.tgid).map(|&at| &self.processes[at]);
            let (comm, exe) =
                parent.map(|parent| (parent.comm.clone(), parent.exe.clone())).unwrap_or_default();
            let layout = self.by_mm.get(&parent_mm).map(|&SpaceId(at)| self.spaces[at].layout);
            let space = self.space_id(header.mm);
            if fork.clone_flags & CLONE_VM == 0
                && let Some(layout) = layout
            {
                self.spaces[space.0].layout = layout;
            }
            let child = self.add_process(child_tgid, fork.child_start_ns, vec![space]);
            (child.comm, child.exe) = (comm, exe);
        }
        What::Fork { child: child_tgid, followed: followed != 0 }
    }

    pub(super) fn exec(&mut self, exec: &Exec) -> What {
        let path = text(&exec.path);
        let space = self.space_id(exec.header.mm);
        self.spaces[space.0].begin(Layout::from(exec));
        let tgid = exec.header.tgid;
        if !self.by_tgid.contains_key(&tgid) {
            self.add_process(tgid, exec.start_ns, Vec::new());
        }
        if let Some(&at) = self.by_tgid.get(&tgid) {
            let process = &mut self.processes[at];
            if let Some(SpaceId(before)) = process.space() {
                self.spaces[before].replaced();
            } else {
                process.faults.before = (exec.minor_faults, exec.major_faults);
            }
            process.start_ns = exec.start_ns;
            process.spaces.push(space);
            process.comm = comm_of(&path);
            process.exe = Some(path.clone());
        }
        What::Exec { path }
    }

    pub(super) fn mm_end(&mut self, end: &MmEnd) -> Option<What> {
        let &MmEnd { header, ledger } = end;
        let Some(id) = self.by_mm.remove(&header.mm) else {
            // It ended before, and frames came late since.
            let (_, SpaceId(at)) = *self.ended.iter().find(|&&(mm, _)| mm == header.mm)?;
            self.spaces[at].ledger = ledger;
            return None;
        };
        let is_last_of_any = self.processes.iter().rev().any(|process| process.space() == Some(id));
        let keep = is_last_of_any && self.processes.len() <= KEPT_REGION_MAPS;
        self.spaces[id.0].end(ledger, keep);
        self.ended.retain(|&(mm, _)| mm != header.mm);
        self.ended.push_back((header.mm, id));
        if self.ended.len() > WATCHED_ENDS {
            self.ended.pop_front();
        }
        let pages = |path: Path| ledger.paths[path.index()].resident_pages();
        let frames = |path: Path| ledger.paths[path.index()].freed_frames;
        Some(What::MmEnd {
            zapped: self.zapped(pages(Path::Exec).saturating_add(pages(Path::Exit))),
            freed: self.freed(frames(Path::Exec).saturating_add(frames(Path::Exit))),
        })
    }
}

/// Returns the name that the kernel gives a process after exec: the last component, 15 bytes
/// (`TASK_COMM_LEN`).
fn comm_of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    String::from_utf8_lossy(&name.as_bytes()[..name.len().min(15)]).into_owned()
}
