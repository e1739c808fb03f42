//! Beginning from a snapshot.
//!
//! A database is built beside its place, in the folder `database.importing`, and gets its name when
//! it is whole: the handovers led from genesis (and from the point that the operator trusts) to the
//! set that certifies the header, the header names the block and its receipts, every chunk was
//! proved against its state root before a row of it was written, and a ledger starts on the result.
//! A crash before that leaves a folder that [`Database::open`] refuses by name; the next import
//! begins it anew. A refusal removes it.
//!
//! A node that is far behind imports beside its open database ([`Import::beside`]) and leaves the
//! result [sealed](Import::seal): the next start takes it over (`adopt`).
//!
//! What is there afterwards: the state with its tree at the height; the block, its certificate and
//! receipts; genesis' block; every handover since genesis, so that this node serves auditors as the
//! others do; where the block closed an epoch, the copy of the state for replays, so that this
//! snapshot can be exported again. Lower heights answer "pruned".

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::light::Handover;
use perturb_ledger::snapshot::{Manifest, Part, Piece, Restorer, SnapshotError};
use perturb_ledger::state::SET;
use perturb_ledger::{Genesis, Ledger, LightError, Trust, ValidatorSet};
use perturb_types::{Digest, encode};
use rocksdb::WriteBatch;

use crate::archive::EPOCH_HEIGHTS;
use crate::database::{
    BLOCKS, CERTIFICATES, DIGESTS, Database, EPOCH_ROWS, FOLDER, HANDOVERS, HEADERS, IMPORTING, META, Options, READY,
    RECEIPTS, VALUES, height_key, lock,
};
use crate::error::StorageError;
use crate::export::{SnapshotFolder, io, room, sync_dir};
use crate::failpoint::Write;
use crate::prune::{OLDEST_BLOCK, OLDEST_STATE, closes};

/// Genesis' block: every database has it.
fn put_genesis(db: &Database, genesis: &Genesis) -> Result<(), StorageError> {
    let commit = genesis_commit(genesis).map_err(|e| StorageError::Ledger(e.to_string()))?;
    let (mut batch, key) = (WriteBatch::default(), height_key(0));
    batch.put_cf(db.family(BLOCKS)?, key, encode::encode(&commit.block));
    batch.put_cf(db.family(RECEIPTS)?, key, encode::encode(&commit.receipts));
    batch.put_cf(db.family(DIGESTS)?, commit.digest.0, key);
    db.write(Write::ImportPart, batch, false)
}

/// A snapshot on its way into a data folder: ask what is [wanted](Import::wanted), [add](Import::add)
/// it, [finish](Import::finish). Everything blocks and belongs to one thread (it is not `Send`).
pub struct Import {
    data_dir: PathBuf,
    lock: Arc<File>,
    genesis: Genesis,
    options: Options,
    db: Option<Database>,
    manifest: Manifest,
    /// Follows the handovers from genesis.
    chain: Trust,
    /// Follows them from what the operator trusts.
    trust: Trust,
    /// None once it has ended.
    restorer: Option<Restorer>,
    parts: std::iter::Peekable<std::vec::IntoIter<Part>>,
    closes: bool,
}

impl Import {
    /// Begins: takes the folder and reads the manifest. `trust` is where belief begins: genesis, or a
    /// later header that the operator named.
    ///
    /// # Errors
    /// The folder is in use or has a database; no manifest; a trusted point of another network.
    pub fn begin(
        data_dir: &Path,
        genesis: &Genesis,
        trust: Trust,
        options: Options,
        manifest: &[u8],
    ) -> Result<Self, StorageError> {
        let manifest = Manifest::decode(manifest)?;
        let (lock, place) = (lock(data_dir)?, data_dir.join(FOLDER));
        if place.exists() {
            return Err(StorageError::Exists(place));
        }
        Self::begin_in(data_dir, lock, genesis, trust, options, manifest)
    }

    /// Begins beside a database that is open and goes on; ends with [`Import::seal`].
    ///
    /// # Errors
    /// As [`Import::begin`], or the snapshot is not ahead of the database.
    pub fn beside(database: &Database, genesis: &Genesis, trust: Trust, manifest: &[u8]) -> Result<Self, StorageError> {
        let (manifest, inner) = (Manifest::decode(manifest)?, &database.inner);
        let (height, have) = (manifest.header.height, database.height()?.unwrap_or(0));
        if height <= have {
            return Err(StorageError::NotAhead { height, have });
        }
        Self::begin_in(database.data_dir(), inner.lock.clone(), genesis, trust, inner.options, manifest)
    }

    fn begin_in(
        data_dir: &Path,
        lock: Arc<File>,
        genesis: &Genesis,
        trust: Trust,
        options: Options,
        manifest: Manifest,
    ) -> Result<Self, StorageError> {
        let chain = Trust::genesis(genesis).map_err(|e| StorageError::Ledger(e.to_string()))?;
        let (network, height) = (chain.network(), manifest.header.height);
        for found in [manifest.header.network, trust.network()] {
            if found != network {
                return Err(SnapshotError::Light(LightError::Network { height, found, expected: network }).into());
            }
        }
        if height < trust.from() {
            return Err(SnapshotError::Light(LightError::Before { height, from: trust.from() }).into());
        }
        Self::forget(data_dir)?;
        // Values, tree and the copy of an epoch's end.
        let bytes: usize = manifest.parts().filter_map(|part| manifest.bytes_of(part)).sum();
        room(data_dir, 4 * bytes as u64)?;
        let restorer = Some(Restorer::new(&manifest)?);
        let path = data_dir.join(IMPORTING);
        std::fs::create_dir(&path).map_err(io(&path))?;
        let begun = Database::open_at(&path, lock.clone(), &network, options);
        let begun = begun.and_then(|db| put_genesis(&db, genesis).map(|()| db));
        let db = match begun {
            Ok(db) => db,
            Err(error) => {
                // The error is what matters; what stays is removed by the next import.
                let _ = Self::forget(data_dir);
                return Err(error);
            }
        };
        let parts = manifest.parts().collect::<Vec<_>>().into_iter().peekable();
        let (data_dir, genesis) = (data_dir.to_path_buf(), genesis.clone());
        Ok(Self {
            data_dir,
            lock,
            genesis,
            options,
            db: Some(db),
            manifest,
            chain,
            trust,
            restorer,
            parts,
            closes: false,
        })
    }

    /// Removes what an import that was cut off has left in a data folder.
    ///
    /// # Errors
    /// The file system.
    pub fn forget(data_dir: &Path) -> Result<(), StorageError> {
        let path = data_dir.join(IMPORTING);
        if path.exists() { std::fs::remove_dir_all(&path).map_err(io(&path)) } else { Ok(()) }
    }

    /// The part that comes next; `None` when all are there.
    pub fn wanted(&mut self) -> Option<Part> {
        self.parts.peek().copied()
    }

    /// Takes the part that is wanted.
    ///
    /// # Errors
    /// [`StorageError::Snapshot`]: where that does not blame the manifest
    /// ([`SnapshotError::blames_manifest`]), another copy of the part may follow; otherwise this
    /// import is over. Or the disk.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let part = self.wanted().ok_or(SnapshotError::Spent)?;
        match part {
            Part::Handovers(n) => {
                let handovers = self.manifest.read_handovers(n, bytes)?;
                self.add_handovers(&handovers)?;
            }
            Part::Block => self.add_block(bytes)?,
            Part::Chunk(_) => {
                let piece = self.restorer.as_mut().ok_or(SnapshotError::Spent)?.add(bytes)?;
                self.add_piece(&piece)?;
            }
        }
        self.parts.next();
        Ok(())
    }

    fn db(&self) -> Result<&Database, StorageError> {
        self.db.as_ref().ok_or_else(|| SnapshotError::Spent.into())
    }

    fn add_handovers(&mut self, handovers: &[Handover]) -> Result<(), StorageError> {
        let network = self.chain.network();
        let mut batch = WriteBatch::default();
        for handover in handovers {
            let (header, height) = (&handover.header, handover.header.height);
            if header.validators == header.next_validators {
                let why = format!("block {height} does not change the validator set");
                return Err(SnapshotError::Manifest(why).into());
            }
            self.chain.advance(handover).map_err(SnapshotError::from)?;
            if height >= self.trust.from() {
                self.trust.advance(handover).map_err(SnapshotError::from)?;
            }
            let (db, key) = (self.db()?, height_key(height));
            batch.put_cf(db.family(HEADERS)?, key, encode::encode(&handover.header));
            batch.put_cf(db.family(CERTIFICATES)?, key, encode::encode(&handover.certificate));
            batch.put_cf(db.family(HANDOVERS)?, key, encode::encode(&handover.next));
            batch.put_cf(db.family(DIGESTS)?, handover.header.digest(&network).0, key);
        }
        self.db()?.write(Write::ImportPart, batch, false)
    }

    fn add_block(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let Manifest { header, certificate, .. } = &self.manifest;
        // From here on the header is the network's, and everything else hangs on it.
        for trust in [&self.chain, &self.trust] {
            trust.check(header, certificate).map_err(SnapshotError::from)?;
        }
        let network = self.chain.network();
        let part = self.manifest.read_block(&network, bytes)?;
        let (db, key) = (self.db()?, height_key(header.height));
        let mut batch = WriteBatch::default();
        batch.put_cf(db.family(BLOCKS)?, key, encode::encode(&part.block));
        batch.put_cf(db.family(CERTIFICATES)?, key, encode::encode(certificate));
        batch.put_cf(db.family(RECEIPTS)?, key, encode::encode(&part.receipts));
        batch.put_cf(db.family(DIGESTS)?, header.digest(&network).0, key);
        db.put_rounds(&mut batch, &part.block)?;
        db.write(Write::ImportPart, batch, false)?;
        self.closes = closes(&part.block);
        Ok(())
    }

    fn add_piece(&self, piece: &Piece) -> Result<(), StorageError> {
        let db = self.db()?;
        let (values, copies) = (db.family(VALUES)?, db.family(EPOCH_ROWS)?);
        let height = height_key(self.manifest.header.height);
        let mut batch = WriteBatch::default();
        for (key, value) in &piece.rows {
            batch.put_cf(values, key, value);
            if self.closes {
                batch.put_cf(copies, [height.as_slice(), key].concat(), value);
            }
        }
        db.put_nodes(&mut batch, &piece.tree)?;
        db.write(Write::ImportPart, batch, false)
    }

    /// Ends: the database is whole, gets its name, and is opened.
    ///
    /// # Errors
    /// Parts are missing, the rows are not the whole state, or the disk; the data folder is then as
    /// it was before.
    pub fn finish(mut self) -> Result<Database, StorageError> {
        let place = self.end_as(FOLDER)?;
        Database::open_at(&place, self.lock, &self.chain.network(), self.options)
    }

    /// Ends beside `database`, which has gone on meanwhile: the next [`Database::open`] takes this one over, with what the
    /// other knows besides the agreed history.
    ///
    /// # Errors
    /// As [`Import::finish`], or it is not ahead any more.
    pub fn seal(mut self, database: &Database) -> Result<(), StorageError> {
        let (height, have) = (self.manifest.header.height, database.height()?.unwrap_or(0));
        if height <= have {
            self.cancel()?;
            return Err(StorageError::NotAhead { height, have });
        }
        self.end_as(READY).map(drop)
    }

    /// Completes the database and gives it a name.
    fn end_as(&mut self, name: &str) -> Result<PathBuf, StorageError> {
        let (path, place) = (self.data_dir.join(IMPORTING), self.data_dir.join(name));
        if let Err(error) = self.complete() {
            Self::forget(&self.data_dir)?;
            return Err(error);
        }
        sync_dir(&path)?;
        if place.exists() {
            std::fs::remove_dir_all(&place).map_err(io(&place))?;
        }
        Write::ImportRename.around(|| std::fs::rename(&path, &place).map_err(io(&place)))?;
        sync_dir(&self.data_dir)?;
        Ok(place)
    }

    fn complete(&mut self) -> Result<(), StorageError> {
        if self.wanted().is_some() {
            return Err(SnapshotError::Spent.into());
        }
        let db = self.db.take().ok_or(SnapshotError::Spent)?;
        let header = &self.manifest.header;
        let (key, network) = (height_key(header.height), self.chain.network());
        let mut batch = WriteBatch::default();
        db.put_nodes(&mut batch, &self.restorer.take().ok_or(SnapshotError::Spent)?.finish()?)?;
        if header.validators != header.next_validators {
            let set = db.get(VALUES, SET)?.unwrap_or_default();
            let next: ValidatorSet = db.parse("validator set", &set)?;
            let (found, expected) = (next.hash(&network), header.next_validators);
            if found != expected {
                let height = header.height;
                return Err(SnapshotError::Light(LightError::Next { height, found, expected }).into());
            }
            batch.put_cf(db.family(HANDOVERS)?, key, set);
        }
        let meta = db.family(META)?;
        for name in ["height", OLDEST_BLOCK, OLDEST_STATE] {
            batch.put_cf(meta, name, key);
        }
        if self.closes {
            batch.put_cf(meta, EPOCH_HEIGHTS, encode::encode(&vec![header.height]));
        }
        db.write(Write::ImportHead, batch, true)?;
        Ledger::new(self.genesis.clone(), db).map_err(|e| StorageError::Ledger(e.to_string()))?;
        Ok(())
    }

    /// Gives up: nothing stays in the folder.
    ///
    /// # Errors
    /// The file system.
    pub fn cancel(mut self) -> Result<(), StorageError> {
        drop(self.db.take());
        Self::forget(&self.data_dir)
    }

    /// Height and digest of the header that this leads to.
    pub fn target(&self) -> (u64, Digest) {
        (self.manifest.header.height, self.manifest.header.digest(&self.chain.network()))
    }
}

impl Database {
    /// Imports a snapshot from a folder into a data folder without a database, and opens that.
    ///
    /// # Errors
    /// See [`Import`]; the data folder is then as before.
    pub fn import_snapshot(
        snapshot: &Path,
        data_dir: &Path,
        genesis: &Genesis,
        trust: Trust,
        options: Options,
    ) -> Result<Self, StorageError> {
        let folder = SnapshotFolder::open(snapshot)?;
        let mut import = Import::begin(data_dir, genesis, trust, options, folder.manifest_bytes())?;
        while let Some(part) = import.wanted() {
            if let Err(error) = folder.part(part).and_then(|bytes| import.add(&bytes)) {
                import.cancel()?;
                return Err(error);
            }
        }
        import.finish()
    }
}
