//! The transactional peers: SQLite and redb, each with one row for each page.
//!
//! Both have one writer at a time. Concurrent committers share a connection and wait for their turn by a lock of this
//! process, which costs SQLite less than connections that find one another busy and sleep.

use std::fmt::Display;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use rusqlite::{Connection, OpenFlags, params};

use super::content::{fill_page, page_digest, stamp_of};
use super::job::WriteJob;
use super::storage::{Committer, PageWrite};
use crate::data::PAGE_BYTES;
use crate::job::Failure;

/// Pages of one transaction of the set-up.
const FILL_PAGES: u64 = 4096;
/// Bytes of SQLite's own pages: the faster of 4096 and 8192 for rows of 4 KiB. With 8192 a row fits in one page.
const SQLITE_PAGE_BYTES: u32 = 8192;
const UPDATE: &str = "UPDATE pages SET bytes = ?2 WHERE page = ?1";
const INSERT: &str = "INSERT INTO pages (page, bytes) VALUES (?1, ?2)";
const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("pages");

fn failed(error: impl Display) -> Failure {
    Failure::Failed(error.to_string())
}

/// Calls `store` with all pages of the job, stamped 0, some thousands at a time.
fn fill(job: &WriteJob, store: impl Fn(&[PageWrite<'_>]) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut bytes = vec![0; (FILL_PAGES * PAGE_BYTES) as usize];
    for first in (0..job.pages()).step_by(FILL_PAGES as usize) {
        let pages = first..job.pages().min(first + FILL_PAGES);
        for (page, bytes) in pages.clone().zip(bytes.chunks_mut(PAGE_BYTES as usize)) {
            fill_page(page, 0, bytes);
        }
        let rows = pages.zip(bytes.chunks(PAGE_BYTES as usize));
        store(&rows.map(|(page, bytes)| PageWrite { page, bytes }).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// SQLite with a write-ahead log that is synced at each commit, and its own rule for checkpoints.
pub struct Sqlite {
    connection: Mutex<Connection>,
}

impl Sqlite {
    /// Makes the database of the job, checkpointed and with an empty log.
    pub fn create(job: &WriteJob) -> Result<Self, Failure> {
        let connection = Connection::open(&job.file).map_err(failed)?;
        let cache_kib = job.budget_bytes >> 10;
        let settings = format!(
            "PRAGMA page_size = {SQLITE_PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA cache_size = -{cache_kib}; \
             CREATE TABLE pages (page INTEGER PRIMARY KEY, bytes BLOB NOT NULL);"
        );
        connection.execute_batch(&settings).map_err(failed)?;
        let sqlite = Self { connection: Mutex::new(connection) };
        fill(job, |pages| sqlite.transact(INSERT, pages))?;
        sqlite.lock().execute_batch("PRAGMA wal_checkpoint(TRUNCATE);").map_err(failed)?;
        Ok(sqlite)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        // A committer that panicked ends the measurement; the others may go on until then.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transact(&self, statement: &str, pages: &[PageWrite<'_>]) -> Result<(), Failure> {
        let mut connection = self.lock();
        let transaction = connection.transaction().map_err(failed)?;
        let mut prepared = transaction.prepare_cached(statement).map_err(failed)?;
        for write in pages {
            let rows = prepared.execute(params![write.page as i64, write.bytes]).map_err(failed)?;
            if rows != 1 {
                return Err(Failure::Failed(format!("page {}: {rows} rows changed", write.page)));
            }
        }
        drop(prepared);
        transaction.commit().map_err(failed)
    }

    /// The digest of all rows of the database at `path`, opened anew.
    pub fn digest(path: &Path) -> Result<u64, Failure> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        let mut query = connection.prepare("SELECT page, bytes FROM pages").map_err(failed)?;
        let mut rows = query.query([]).map_err(failed)?;
        let mut digest: u64 = 0;
        while let Some(row) = rows.next().map_err(failed)? {
            let page = row.get::<_, i64>(0).map_err(failed)? as u64;
            let bytes = row.get_ref(1).map_err(failed)?.as_blob().map_err(failed)?;
            digest = digest.wrapping_add(page_digest(page, stamp_of(page, bytes)?));
        }
        Ok(digest)
    }
}

impl Committer for Sqlite {
    fn commit(&self, pages: &[PageWrite<'_>]) -> Result<(), Failure> {
        self.transact(UPDATE, pages)
    }
}

/// redb, durable at each commit.
pub struct Redb {
    database: Database,
}

impl Redb {
    /// Makes the database of the job.
    pub fn create(job: &WriteJob) -> Result<Self, Failure> {
        let database =
            Builder::new().set_cache_size(job.budget_bytes as usize).create(&job.file).map_err(failed)?;
        let redb = Self { database };
        fill(job, |pages| redb.commit(pages))?;
        Ok(redb)
    }

    /// The digest of all rows of the database at `path`, opened anew.
    pub fn digest(path: &Path) -> Result<u64, Failure> {
        let database = Database::open(path).map_err(failed)?;
        let table = database.begin_read().map_err(failed)?.open_table(TABLE).map_err(failed)?;
        let mut digest: u64 = 0;
        for row in table.iter().map_err(failed)? {
            let (page, bytes) = row.map_err(failed)?;
            digest = digest.wrapping_add(page_digest(page.value(), stamp_of(page.value(), bytes.value())?));
        }
        Ok(digest)
    }
}

impl Committer for Redb {
    fn commit(&self, pages: &[PageWrite<'_>]) -> Result<(), Failure> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        let mut table = transaction.open_table(TABLE).map_err(failed)?;
        for write in pages {
            table.insert(write.page, write.bytes).map_err(failed)?;
        }
        drop(table);
        transaction.commit().map_err(failed)
    }
}
