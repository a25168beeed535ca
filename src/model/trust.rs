//! Whether a bundle's files are those that someone vouches for.
//!
//! ```text
//!  --model-key ─► manifest.toml.minisig ─► manifest.toml ─► [files], sha256 ─► every other file that is read
//! ```
//!
//! The digital signature is of the manifest alone and is looked at before anything of the bundle is parsed; the manifest has the
//! hashes of the rest. Signatures are minisign's (<https://jedisct1.github.io/minisign/>): `minisign -S -m manifest.toml`.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use minisign_verify::{PublicKey, Signature};
use sha2::{Digest, Sha256};

use super::ModelError;
use super::manifest::Manifest;
use crate::bounded_read::read_text;
use crate::digest::hexadecimal;
use crate::log_events;

/// The largest public key and signature that are read, bytes: minisign's have some 300.
const MOST_BYTES: u64 = 16 << 10;

/// Files beside manifest and model that decide what is served or how it is judged.
const READ: [&str; 2] = ["golden.jsonl", "reference.json"];

/// A minisign public key: whose signature a bundle must have.
#[derive(Clone, Debug)]
pub struct ModelKey {
    key: PublicKey,
    text: String,
}

impl FromStr for ModelKey {
    type Err = String;

    /// A key as `minisign -G` prints it, or the file that it writes.
    fn from_str(text: &str) -> Result<ModelKey, String> {
        if let Ok(key) = PublicKey::from_base64(text.trim()) {
            return Ok(ModelKey { key, text: text.trim().to_owned() });
        }
        let content = read(Path::new(text)).map_err(|error| {
            format!("{text:?} is neither a minisign public key (RW…) nor a file that holds one ({error})")
        })?;
        let key =
            PublicKey::decode(&content).map_err(|error| format!("{text} holds no minisign public key: {error}"))?;
        let line = content.lines().nth(1).unwrap_or_default().trim().to_owned();
        Ok(ModelKey { key, text: line })
    }
}

impl ModelKey {
    /// The key in one line, for another process of ours.
    pub fn line(&self) -> &str {
        &self.text
    }

    /// Checks the signature of a manifest's bytes.
    ///
    /// # Errors
    /// There is none, or it is not of this key over these bytes.
    pub fn check(&self, directory: &Path, manifest: &[u8]) -> Result<(), ModelError> {
        let path = directory.join("manifest.toml.minisig");
        let refuse = |reason: String| ModelError::Untrusted { path: path.clone(), reason };
        let text = read(&path).map_err(|error| {
            refuse(format!("{error}: with --model-key a bundle must be signed (minisign -S -m manifest.toml)"))
        })?;
        let signature = Signature::decode(&text).map_err(|error| refuse(format!("no minisign signature: {error}")))?;
        // Signatures of the whole file, as minisign before 0.10 made them, are as good as those of its hash.
        self.key.verify(manifest, &signature, true).map_err(|error| {
            refuse(format!("{error}: the manifest was changed after it was signed, or another key signed it"))
        })
    }
}

/// What is asked of a bundle beside that it works.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    /// Signed by this key.
    pub key: Option<ModelKey>,
    /// From a registry, where many may write: with golden records, and all that is read is hashed.
    pub is_registered: bool,
}

impl Demands {
    /// Checks the files that the manifest lists, and that it lists those that are read where that is asked for.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub fn check_files(&self, directory: &Path, manifest: &Manifest) -> Result<(), ModelError> {
        let refuse = |name: &str, reason: String| ModelError::Untrusted { path: directory.join(name), reason };
        let must_list = self.key.is_some() || self.is_registered || !manifest.files.is_empty();
        for name in READ {
            if manifest.files.contains_key(name) || !directory.join(name).exists() {
                continue;
            }
            if must_list {
                let fix = format!("add it to the manifest: [files] \"{name}\" = \"SHA-256\"");
                return Err(refuse(name, format!("nothing says what it should hold; {fix}")));
            }
            log_events::model::FileNotHashed { bundle: &directory.display(), file: name }.log();
        }
        for (name, expected) in &manifest.files {
            let path = directory.join(name);
            let found = hash(&path).map_err(|source| ModelError::Unreadable { path: path.clone(), source })?;
            if found != *expected {
                return Err(ModelError::WrongHash { path, found, expected: expected.clone() });
            }
        }
        if self.is_registered && !directory.join(READ[0]).exists() {
            let reason = "a bundle of a registry needs golden records, so that it is seen before it serves whether it scores as in \
                          training (docs/bring-your-own-model.md)";
            return Err(refuse(READ[0], reason.into()));
        }
        Ok(())
    }
}

fn hash(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash, mut buffer) = (fs::File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    read_text(fs::File::open(path)?, MOST_BYTES)
}
