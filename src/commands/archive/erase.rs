//! `fraud-scorer archive erase`: takes the rows of some transactions out of an archive.
//!
//! ```text
//!  --ids-file, --id ─► ids, within limits ─► archive::erase ─► a line on standard output, the exit code
//! ```

use std::io::{ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use fraud_storage::Location;

use crate::archive::erase::{Eraser, Ids, Summary};
use crate::archive::store::Store;
use crate::bounded_read::read_text;
use crate::commands::Failure;
use crate::log_events::archive as events;
use crate::pipeline::decode::MOST_ID_BYTES;

/// Largest file of ids, bytes: a million of them, and more.
const MOST_BYTES: u64 = 64 << 20;

/// Arguments of `archive erase`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Where the archive is: a folder, or s3://BUCKET/PREFIX, as for archive itself
    #[arg(long, value_name = "LOCATION", value_parser = Location::parse)]
    pub to: Location,

    /// File with the ids of the transactions whose rows go, one a line; - reads standard input
    #[arg(long, value_name = "FILE")]
    pub ids_file: Option<PathBuf>,

    /// One such id; may be repeated. Others on this host can read it: better --ids-file
    #[arg(long = "id", value_name = "ID")]
    pub ids: Vec<String>,

    /// Folder on a local disk for copies of files [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,

    /// Only count what would go
    #[arg(long)]
    pub dry_run: bool,
}

/// Erases, and says what was done.
pub fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let ids = ids(arguments).map_err(Failure::configuration)?;
    let location = &arguments.to;
    let unusable = |reason: &str| Failure::configuration(anyhow!("cannot use --to {location}: {reason}"));
    // Opening makes a folder that is missing: a misspelt one would then be empty, and nothing erased.
    if let Location::Folder(folder) = location
        && !folder.is_dir()
    {
        return Err(unusable("there is no such folder"));
    }
    let store = Store::open(location).map_err(|reason| unusable(&reason))?;
    let spool = super::spool(arguments.spool.as_ref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (runtime, dry_run) = (runtime.handle(), arguments.dry_run);
    let summary = Eraser { store: &store, runtime, spool: &spool, ids: &ids, dry_run }.run();
    let Summary { files, rewritten, rows, failed } = summary;
    events::Erased { location, ids: ids.len(), dry_run, files, rewritten, rows, failed }.log();
    if failed > 0 {
        let message = "files, or their list, could not be read or written, as logged: rows may be left. Run it again";
        return Err(Failure::at_run_time(anyhow!("{failed} {message}")));
    }
    if files == 0 {
        return Err(unusable("there is no file of an archive below it"));
    }
    let would = if dry_run { " would be" } else { "" };
    let _ = writeln!(std::io::stdout(), "{rows} rows{would} erased; {rewritten} of {files} files{would} rewritten");
    Ok(())
}

/// All ids. No error quotes one: it goes to a terminal, and to a log.
fn ids(arguments: &Arguments) -> anyhow::Result<Ids> {
    let mut ids = Ids::new();
    for id in &arguments.ids {
        add(&mut ids, id).map_err(|reason| anyhow!("--id: {reason}"))?;
    }
    if let Some(file) = &arguments.ids_file {
        let whence = || format!("--ids-file {}", file.display());
        let text = read(file).with_context(whence)?;
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            add(&mut ids, line).map_err(|reason| anyhow!("line {}: {reason}", index + 1)).with_context(whence)?;
        }
    }
    if ids.is_empty() {
        return Err(anyhow!("there is no id: write one a line into a file for --ids-file (- is standard input)"));
    }
    Ok(ids)
}

fn add(ids: &mut Ids, id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("an id is not empty".to_owned()),
        bytes if bytes > MOST_ID_BYTES => Err(format!("an id has at most {MOST_ID_BYTES} bytes, not {bytes}")),
        _ => {
            ids.insert(id.as_bytes().into());
            Ok(())
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let source: Box<dyn Read> =
        if file == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(std::fs::File::open(file)?) };
    match read_text(source, MOST_BYTES) {
        Err(error) if error.kind() == ErrorKind::FileTooLarge => Err(anyhow!("{error}: erase in several runs")),
        text => Ok(text?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn arguments(ids: &[&str], file: Option<&Path>) -> Arguments {
        Arguments {
            to: Location::Folder(PathBuf::new()),
            ids_file: file.map(Path::to_owned),
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            spool: None,
            dry_run: false,
        }
    }

    #[test]
    fn ids_come_from_lines_and_flags_and_what_is_wrong_is_named_by_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "t1\r\n\nwith space \nt2").unwrap();
        let found = ids(&arguments(&["t2", "t3"], Some(file.path()))).unwrap();
        let expected = ["t1", "with space ", "t2", "t3"].map(|id| Box::from(id.as_bytes()));
        assert_eq!(found, Ids::from(expected));

        let refused = |ids: Result<Ids, anyhow::Error>| format!("{:#}", ids.unwrap_err());
        std::fs::write(file.path(), format!("t1\n{}", "x".repeat(1025))).unwrap();
        let error = refused(ids(&arguments(&[], Some(file.path()))));
        assert!(error.contains("line 2: an id has at most 1024 bytes") && !error.contains("xx"), "{error}");
        assert!(refused(ids(&arguments(&[], None))).contains("--ids-file"));
        assert!(refused(ids(&arguments(&[""], None))).contains("--id: an id is not empty"));
        assert!(refused(ids(&arguments(&[], Some(Path::new("/nowhere"))))).contains("--ids-file /nowhere"));
    }
}
