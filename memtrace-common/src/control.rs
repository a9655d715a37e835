//! What userspace tells the probes before they load: where the kernel keeps its fields, and what
//! was asked for. Each name is a `Global<u32>` in the object.

/// The value of an offset that this kernel does not have.
pub const NO_FIELD: u32 = u32::MAX;

/// A kernel structure's field whose byte offset the probes need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name of the global in the object.
    pub global: &'static str,
    /// The structure.
    pub structure: &'static str,
    /// Member, or members joined by dots.
    pub member: &'static str,
}

macro_rules! fields {
    ($($global:ident = $structure:literal $member:literal),+ $(,)?) => {
        /// Every field, looked up in the running kernel's BTF.
        pub const FIELDS: &[Field] = &[
            $(Field { global: stringify!($global), structure: $structure, member: $member }),+
        ];
    };
}

fields! {
    TASK_MM = "task_struct" "mm",
    TASK_TGID = "task_struct" "tgid",
    TASK_PID = "task_struct" "pid",
    TASK_FLAGS = "task_struct" "flags",
    TASK_COMM = "task_struct" "comm",
    TASK_SIGNAL = "task_struct" "signal",
    TASK_LEADER = "task_struct" "group_leader",
    TASK_START = "task_struct" "start_boottime",
    TASK_MIN_FLT = "task_struct" "min_flt",
    TASK_MAJ_FLT = "task_struct" "maj_flt",
    TASK_RSS_CACHE = "task_struct" "rss_stat.count",
    TASK_EXIT_CODE = "task_struct" "exit_code",
    TASK_NO_FAULTS = "task_struct" "pagefault_disabled",
    TASK_CGROUPS = "task_struct" "cgroups",
    SET_CGROUP = "css_set" "dfl_cgrp",
    STATE_CGROUP = "cgroup_subsys_state" "cgroup",
    CGROUP_NODE = "cgroup" "kn",
    NODE_ID = "kernfs_node" "id",
    SIGNAL_LIVE = "signal_struct" "live",
    SIGNAL_MIN_FLT = "signal_struct" "min_flt",
    SIGNAL_MAJ_FLT = "signal_struct" "maj_flt",
    SIGNAL_FLAGS = "signal_struct" "flags",
    SIGNAL_GROUP_EXIT_CODE = "signal_struct" "group_exit_code",
    MM_USERS = "mm_struct" "mm_users",
    MM_TREE = "mm_struct" "mm_mt",
    MM_RSS = "mm_struct" "rss_stat",
    MM_START_BRK = "mm_struct" "start_brk",
    MM_BRK = "mm_struct" "brk",
    MM_START_STACK = "mm_struct" "start_stack",
    MM_VDSO = "mm_struct" "context.vdso",
    PERCPU_COUNT = "percpu_counter" "count",
    PERCPU_COUNTERS = "percpu_counter" "counters",
    VMA_START = "vm_area_struct" "vm_start",
    VMA_END = "vm_area_struct" "vm_end",
    VMA_MM = "vm_area_struct" "vm_mm",
    VMA_FLAGS = "vm_area_struct" "vm_flags",
    VMA_PGOFF = "vm_area_struct" "vm_pgoff",
    VMA_FILE = "vm_area_struct" "vm_file",
    FILE_INODE = "file" "f_inode",
    FILE_DENTRY = "file" "f_path.dentry",
    INODE_INO = "inode" "i_ino",
    INODE_SB = "inode" "i_sb",
    SB_DEV = "super_block" "s_dev",
    SB_MAGIC = "super_block" "s_magic",
    DENTRY_NAME = "dentry" "d_name.name",
    DENTRY_HASH = "dentry" "d_name.hash_len",
    MAS_TREE = "ma_state" "tree",
    MAS_INDEX = "ma_state" "index",
    MAS_LAST = "ma_state" "last",
    PAGE_FLAGS = "page" "flags",
    PAGE_MAPPING = "folio" "mapping",
    PAGE_INDEX = "folio" "index",
    PAGE_ANON_ROOT = "anon_vma" "rb_root.rb_root.rb_node",
    PAGE_CHAIN_NODE = "anon_vma_chain" "rb",
    PAGE_CHAIN_VMA = "anon_vma_chain" "vma",
    BPRM_FILENAME = "linux_binprm" "filename",
    ARRAY_PPTRS = "bpf_array" "pptrs",
}

/// Flags of the kernel that are looked up by name in its BTF, since their bits move.
pub const PG_UPTODATE: &str = "PG_uptodate";
