//! Limits of the whole runtime, fixed when it starts.
//!
//! What differs per policy is in [`crate::limits`]. Invariant: every default is safe for
//! guests that nobody has looked at.

/// Settings of a [`crate::Sandbox`]. Memory figures are upper bounds, taken when used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Component instances alive at once, idle ones included. Default 256: sized by
    /// concurrency, not by tenants; up to 1,000 make sense.
    pub slots: u32,
    /// Length of an epoch tick in milliseconds, the resolution of deadlines. Default 1.
    pub tick_ms: u64,
    /// Bytes that any one linear memory may ever have, whatever a policy's own limit says.
    /// Default 64 MiB, the largest that a plan may allow.
    pub memory_bytes_max: usize,
    /// Bytes of each memory slot that are reset by memset and stay resident. Default
    /// 256 KiB: a small guest never costs a system call.
    pub memory_resident_bytes: usize,
    /// The same for each table slot. Default 16 KiB.
    pub table_resident_bytes: usize,
    /// Bytes that a guest may hand to the host in one call. Default 256 KiB (wasmtime's
    /// own is 128 MiB).
    pub hostcall_bytes: usize,
    /// Bytes of native stack that guest code may use. Default 256 KiB.
    pub wasm_stack_bytes: usize,
    /// Elements of any one table. Default 20,000: JavaScript and Python need 7,800.
    pub table_elements_max: usize,
    /// Core instances in one component. Default 128: JavaScript and Python need 116.
    pub core_instances_max: u32,
    /// Linear memories in one component. Default 4: JavaScript and Python need 3.
    pub memories_max: u32,
    /// Tables in one component. Default 16: adapters bring one each.
    pub tables_max: u32,
    /// Calls of one tenant at once on one worker; more are shed. Default 32: one tenant
    /// cannot take every slot.
    pub tenant_calls_max: u32,
    /// Idle instances kept per worker for policies that allow reuse. Default 64.
    pub idle_instances_max: usize,
    /// Milliseconds after which an idle instance is dropped. Default 10,000.
    pub idle_ms_max: u64,
    /// Whether one compilation may use every core. Default false: the workers are busy
    /// with requests meanwhile.
    pub compile_parallel: bool,
    /// What a component may have in it.
    pub component: ComponentCaps,
    /// Bounds of the key-value data.
    pub keyvalue: KeyvalueConfig,
    /// Metric series that all policies together may make. Default 10,000.
    pub metric_series_max: usize,
    /// Metric series of one tenant and policy. Default 100.
    pub metric_series_per_policy_max: usize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            slots: 256,
            tick_ms: 1,
            memory_bytes_max: 64 << 20,
            memory_resident_bytes: 256 << 10,
            table_resident_bytes: 16 << 10,
            hostcall_bytes: 256 << 10,
            wasm_stack_bytes: 256 << 10,
            table_elements_max: 20_000,
            core_instances_max: 128,
            memories_max: 4,
            tables_max: 16,
            tenant_calls_max: 32,
            idle_instances_max: 64,
            idle_ms_max: 10_000,
            compile_parallel: false,
            component: ComponentCaps::default(),
            keyvalue: KeyvalueConfig::default(),
            metric_series_max: 10_000,
            metric_series_per_policy_max: 100,
        }
    }
}

/// What a component may have in it. Checked before the compiler sees it: wasmtime does
/// not count a slow compilation as a fault of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentCaps {
    /// Bytes of the file. Default 32 MiB: a Python component has 18.5.
    pub bytes: usize,
    /// Core modules. Default 128: Python links its libraries at start.
    pub modules: u64,
    /// Depth of components within components. Default 4.
    pub depth: u64,
    /// Nested components. Default 64: an exported interface is one.
    pub components: u64,
    /// Instances, of components and of modules. Default 1,000.
    pub instances: u64,
    /// Types, imports and exports, each. Default 20,000.
    pub items: u64,
    /// Functions of all modules. Default 100,000.
    pub functions: u64,
    /// Bytes of one function body. Default 512 KiB: interpreters have large ones, the
    /// parser's own limit is 7.6 MB.
    pub body_bytes: u64,
    /// Locals of one function. Default 10,000.
    pub locals: u64,
    /// Data and element segments of all modules, each. Default 20,000.
    pub segments: u64,
}

impl Default for ComponentCaps {
    fn default() -> Self {
        Self {
            bytes: 32 << 20,
            modules: 128,
            depth: 4,
            components: 64,
            instances: 1_000,
            items: 20_000,
            functions: 100_000,
            body_bytes: 512 << 10,
            locals: 10_000,
            segments: 20_000,
        }
    }
}

/// Bounds of the key-value data, beside the bytes of one tenant and policy, which are among
/// the policy's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyvalueConfig {
    /// Bytes of a key. Default 512.
    pub key_bytes_max: usize,
    /// Bytes of a value. Default 64 KiB.
    pub value_bytes_max: usize,
    /// Keys of one tenant and policy. Default 10,000.
    pub keys_max: usize,
    /// Bytes of all together, where they are kept in this process. Default 64 MiB.
    pub bytes_max: usize,
}

impl Default for KeyvalueConfig {
    fn default() -> Self {
        Self {
            key_bytes_max: 512,
            value_bytes_max: 64 << 10,
            keys_max: 10_000,
            bytes_max: 64 << 20,
        }
    }
}
