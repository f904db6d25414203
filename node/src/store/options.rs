//! The column families of a replica and how each is tuned.
//!
//! Never here: what the keys mean. Invariant: a family's name and the name of its merge operator are never changed: both
//! are on disk.

use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, CompactOptions, DBCompressionType, LogLevel, Options, ReadOptions,
};

use super::{Resources, StoreError, merge};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A column family.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Bucket values; writes are merges of fragments.
    Blocks,
    /// Newest values of each device; writes are merges.
    Latest,
    /// The registry of devices.
    Devices,
    /// Applied state, counters, producers.
    Meta,
}

impl Family {
    /// All families, in the order of [`Family::index`].
    pub const ALL: [Self; 4] = [Self::Blocks, Self::Latest, Self::Devices, Self::Meta];

    pub(super) fn index(self) -> usize {
        match self {
            Self::Blocks => 0,
            Self::Latest => 1,
            Self::Devices => 2,
            Self::Meta => 3,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Latest => "latest",
            Self::Devices => "devices",
            Self::Meta => "meta",
        }
    }

    fn memtable_bytes(self) -> usize {
        match self {
            Self::Blocks => 32 * MIB,
            // A device's newest record may be as large as a small fragment: a smaller memtable here would be the one that
            // decides when all of them flush.
            Self::Latest => 16 * MIB,
            Self::Devices | Self::Meta => 8 * MIB,
        }
    }

    fn block_bytes(self) -> usize {
        match self {
            Self::Blocks => 32 * KIB,
            _ => 16 * KIB,
        }
    }

    /// Options of this family.
    pub(super) fn options(self, resources: &Resources) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_size(self.memtable_bytes());
        options.set_arena_block_size(512 * KIB);
        // Flushes of all replicas share few threads: room to wait for one, before RocksDB would slow writes down.
        options.set_max_write_buffer_number(8);
        options.set_level_zero_file_num_compaction_trigger(4);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_max_bytes_for_level_base(256 * MIB as u64);
        options.set_target_file_size_base(64 * MIB as u64);
        options.set_compression_type(DBCompressionType::None);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options.set_block_based_table_factory(&self.table(resources));
        match self {
            Self::Blocks => {
                options.set_merge_operator("tidemark.bucket.1", merge::bucket_full, merge::bucket_partial);
            }
            Self::Latest => {
                options.set_merge_operator("tidemark.latest.1", merge::latest_full, merge::latest_partial);
            }
            Self::Devices | Self::Meta => {}
        }
        options
    }

    fn table(self, resources: &Resources) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_size(self.block_bytes());
        table.set_block_cache(&resources.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(true);
        table.set_optimize_filters_for_memory(true);
        table
    }
}

/// Options of the whole database.
///
/// # Errors
/// When the engine does not know what is set by name here.
pub(super) fn database(resources: &Resources, create: bool) -> Result<Options, StoreError> {
    // The log holds what is not flushed. Who closes for a restart flushes first, and who closes to remove must not.
    let mut options = Options::default().get_options_from_string("avoid_flush_during_shutdown=true")?;
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_env(&resources.env);
    options.set_write_buffer_manager(&resources.memtables);
    options.set_max_background_jobs(resources.background_jobs);
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    options.set_bytes_per_sync(MIB as u64);
    options.set_max_open_files(1024);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 * MIB);
    options.set_log_level(LogLevel::Warn);
    // One replica is one of many in the process: no timers of its own.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    Ok(options)
}

/// Options of every read.
pub(super) fn reads() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

/// Options of a full compaction: the bottom level is rewritten as well.
pub(super) fn full_compaction() -> CompactOptions {
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
    // Else files pile up at the top until writes stall.
    options.set_exclusive_manual_compaction(false);
    options
}
