//! Ends what this program started, however this program ends.
//!
//! Contenders run in process groups of their own, so that a whole tree of them can be measured and ended; a Ctrl-C at
//! the terminal therefore does not reach them. A small shell is told of every group; when its standard input closes,
//! because this program is done or was killed, it kills what is left and removes the broker's data.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

const SHELL: &str = r#"
declare -A groups folders
while IFS= read -r line; do
    case $line in
    '+ '*) groups[${line#+ }]=1 ;;
    '- '*) unset "groups[${line#- }]" ;;
    'folder '*) folders[${line#folder }]=1 ;;
    esac
done
for group in "${!groups[@]}"; do kill -KILL -- "-$group" 2>/dev/null; done
for folder in "${!folders[@]}"; do rm -rf "$folder"; done
"#;

fn tell(line: &str) {
    static REAPER: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let reaper = REAPER.get_or_init(|| {
        let mut shell = Command::new("bash");
        shell.args(["-c", SHELL]).stdin(Stdio::piped()).process_group(0);
        Mutex::new(shell.spawn().unwrap().stdin.take().unwrap())
    });
    writeln!(reaper.lock().unwrap(), "{line}").unwrap();
}

/// Has a folder removed at the end.
pub fn remove_at_end(folder: &Path) {
    tell(&format!("folder {}", folder.display()));
}

/// A process and its descendants, as one group.
pub struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    /// Starts `command` in a group of its own.
    pub fn spawn(command: &mut Command) -> std::io::Result<Group> {
        let child = command.process_group(0).stdin(Stdio::null()).spawn()?;
        tell(&format!("+ {}", child.id()));
        Ok(Group { child, ended: false })
    }

    /// The group's id, which is its first process's.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How its first process ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGTERM to all, and SIGKILL to those who are still there after `patience`.
    pub fn stop(&mut self, patience: Duration) {
        if self.ended {
            return;
        }
        self.signal("-TERM");
        let deadline = Instant::now() + patience;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }

    fn kill(&mut self) {
        // The first process may be gone and its children not: the group's id stays theirs.
        self.signal("-KILL");
        let _ = self.child.wait();
        self.ended = true;
        tell(&format!("- {}", self.id()));
    }

    fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        kill.args([signal, "--", &format!("-{}", self.id())]).stderr(Stdio::null());
        let _ = kill.status();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}
