//! The tuning of RocksDB: every option that differs from its default, and why. The measurements are in
//! `docs/decisions/2026-11-21-store-tuning.md`.

use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompactionStyle, DBCompressionType,
    DBRecoveryMode, InfoLogger, LogLevel, Options, ReadOptions, UniversalCompactOptions,
    WriteOptions,
};

use crate::store::family::Family;
use crate::store::settings::StoreSettings;

const KIBIBYTE: usize = 1024;
const MEBIBYTE: usize = 1024 * KIBIBYTE;

/// Most sorted runs of the queue: reading merges them, so this bounds the cost of a page.
const QUEUE_RUNS: i32 = 12;

/// Receives the warnings that RocksDB logs, for example what it dropped from a torn log.
pub(crate) type Warnings = Arc<dyn Fn(&str) + Send + Sync>;

/// Options of the whole database.
#[must_use]
pub(crate) fn database_options(settings: &StoreSettings, warnings: Warnings) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A power cut leaves a torn last record, and nothing after a broken record was acknowledged in `fsync` mode. Only
    // this mode works with recycled logs.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // Overwriting a log whose blocks are allocated avoids the journal of the file system: a sync costs less than
    // half.
    options.set_recycle_log_file_num(2);
    // After a crash the log is replayed at opening: this bounds the time it takes.
    options.set_max_total_wal_size(settings.write_buffer_bytes as u64);
    options.set_db_write_buffer_size(settings.write_buffer_bytes);
    // With one writer, parallel inserts gain nothing.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(MEBIBYTE as u64);
    options.set_compaction_readahead_size(512 * KIBIBYTE);
    options.set_writable_file_max_buffer_size(256 * KIBIBYTE as u64);
    options.set_max_open_files(settings.max_open_files);
    options.set_max_file_opening_threads(2);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_max_manifest_file_size(16 * MEBIBYTE);
    options.set_is_fd_close_on_exec(true);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, move |level, line| {
        // RocksDB logs all options at opening, whatever the level: more than a thousand lines.
        if matches!(level, LogLevel::Warn | LogLevel::Error | LogLevel::Fatal) {
            warnings(line.trim_end());
        }
    }));
    options
}

/// Every column family with its options, sharing one block cache.
#[must_use]
pub(crate) fn family_descriptors(settings: &StoreSettings) -> Vec<ColumnFamilyDescriptor> {
    let cache = settings.block_cache.open(settings.block_cache_bytes);
    let describe = |family: &Family| {
        let options = family_options(*family, settings, cache);
        ColumnFamilyDescriptor::new(family.name(), options)
    };
    Family::ALL.iter().map(describe).collect()
}

fn family_options(family: Family, settings: &StoreSettings, cache: &Cache) -> Options {
    let mut options = Options::default();
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // In the cache, so that memory does not grow with the number of files.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(false);
    table.set_format_version(6);
    options.set_write_buffer_size(write_buffer_bytes(family, settings));
    options.set_max_write_buffer_number(4);
    if family.holds_messages() {
        table.set_block_size(16 * KIBIBYTE);
        options.set_compression_type(DBCompressionType::Lz4);
    } else {
        options.set_arena_block_size(64 * KIBIBYTE);
        options.set_compression_type(DBCompressionType::None);
    }
    if family == Family::Queue {
        // A queue is written once, read once and removed: merging it into levels would rewrite each message seven
        // times. Runs of similar size are merged instead, and pairs of entry and removal vanish when they meet.
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_universal_compaction_options(&queue_compaction());
        options.set_level_zero_file_num_compaction_trigger(QUEUE_RUNS);
        options.set_level_zero_slowdown_writes_trigger(3 * QUEUE_RUNS);
        options.set_level_zero_stop_writes_trigger(4 * QUEUE_RUNS);
        // Files that consist mostly of removals are merged first.
        options.add_compact_on_deletion_collector_factory(20_000, 15_000, 0.6);
    }
    if matches!(family, Family::Bodies | Family::Retained) {
        options.add_compact_on_deletion_collector_factory(1_000, 500, 0.5);
    }
    options.set_block_based_table_factory(&table);
    options
}

fn write_buffer_bytes(family: Family, settings: &StoreSettings) -> usize {
    match family {
        Family::Queue => settings.write_buffer_bytes / 2,
        Family::Bodies => settings.write_buffer_bytes / 8,
        Family::Meta
        | Family::Sessions
        | Family::Subscriptions
        | Family::QueueIndex
        | Family::Released
        | Family::Incoming
        | Family::Retained
        | Family::Queues
        | Family::BodyReferences => settings.write_buffer_bytes / 16,
    }
}

fn queue_compaction() -> UniversalCompactOptions {
    let mut options = UniversalCompactOptions::default();
    options.set_min_merge_width(4);
    options.set_size_ratio(20);
    options.set_max_size_amplification_percent(200);
    options
}

/// How a group is written.
#[must_use]
pub(crate) fn write_options(sync: WriteSync) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(sync == WriteSync::Yes);
    options
}

/// Whether a write waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteSync {
    /// It returns when the data is on disk.
    Yes,
    /// It returns when the operating system has the data.
    No,
}

/// Options for reading ranges, which must not evict other data from the cache.
#[must_use]
pub(crate) fn scan_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_readahead_size(256 * KIBIBYTE);
    options
}
