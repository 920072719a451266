//! The wasmtime engine and its settings.
//!
//! Built once. The reasons stand beside the settings because each of them closes a hole
//! or buys a measured microsecond (`sandbox.md`, section 2). Invariant: no proposal is on
//! that the validator of `prescan.rs` does not know.

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
};

use crate::{config::SandboxConfig, error::SandboxError};

/// Native stack for host functions above the guest's own share. They are shallow; logging
/// needs the most.
const HOST_STACK_BYTES: usize = 256 << 10;
/// Frames of a guest's stack in a trap's text.
pub(crate) const TRAP_FRAMES: usize = 4;

/// Builds the engine that runs guests.
pub(crate) fn build(config: &SandboxConfig) -> Result<Engine, SandboxError> {
    let mut settings = settings(config);
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    Engine::new(&settings).map_err(|error| SandboxError::Engine(format!("{error:#}")))
}

/// Builds an engine that only compiles, for the other one: the same settings, without the
/// address space that a pool reserves.
pub(crate) fn build_for_compiling(config: &SandboxConfig) -> Result<Engine, SandboxError> {
    let mut settings = settings(config);
    settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&settings).map_err(|error| SandboxError::Engine(format!("{error:#}")))
}

/// Everything that compiled code depends on.
fn settings(config: &SandboxConfig) -> Config {
    let mut settings = Config::new();
    // Four of the 2026 advisories were in Winch.
    settings.strategy(Strategy::Cranelift);
    // Guests yield at every tick and stop at their deadline; fuel would double compile time.
    settings.epoch_interruption(true);
    // The contract is synchronous: calls are 2.6 times cheaper without task bookkeeping.
    settings.concurrency_support(false);
    settings.max_wasm_stack(config.wasm_stack_bytes);
    settings.async_stack_size(config.wasm_stack_bytes + HOST_STACK_BYTES);
    // An instance starts by mapping its image, not by copying data segments.
    settings.memory_init_cow(true);
    settings.parallel_compilation(config.compile_parallel);
    settings.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(TRAP_FRAMES));
    switch_proposals_off(&mut settings);
    settings
}

/// What no policy needs and every embedder has had advisories for.
fn switch_proposals_off(settings: &mut Config) {
    settings.wasm_tail_call(false);
    settings.wasm_relaxed_simd(false);
    settings.wasm_memory64(false);
    // Several memories stay on: wasmtime's own adapters between nested components (every
    // JavaScript component has them) span two, and translating one panics without. Guests'
    // modules may not have them all the same: `prescan` refuses them before this sees them.
    settings.wasm_custom_page_sizes(false);
    settings.wasm_wide_arithmetic(false);
    // Threads, GC and exceptions are not even compiled in.
    settings.shared_memory(false);
    settings.gc_support(false);
}

fn pool(config: &SandboxConfig) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    // Slots follow concurrency: a tenant costs only its code.
    pool.total_component_instances(config.slots);
    pool.total_stacks(config.slots);
    // Most components have one memory and two tables; the few with more share the rest.
    pool.total_memories(config.slots.saturating_mul(2));
    pool.total_tables(config.slots.saturating_mul(4));
    pool.total_core_instances(config.slots.saturating_mul(config.core_instances_max));
    pool.max_core_instances_per_component(config.core_instances_max);
    pool.max_memories_per_component(config.memories_max);
    pool.max_tables_per_component(config.tables_max);
    pool.max_tables_per_module(config.tables_max);
    pool.table_elements(config.table_elements_max);
    pool.max_memory_size(config.memory_bytes_max);
    // Small guests are reset by memset: no madvise, no TLB shootdown.
    pool.linear_memory_keep_resident(config.memory_resident_bytes);
    pool.table_keep_resident(config.table_resident_bytes);
    // Its mask in wasmtime 48.0 misses swapped-out dirty pages: the next tenant in the slot
    // could read them (wasmtime#14357).
    pool.pagemap_scan(Enabled::No);
    pool
}
