//! What `/proc` says about process groups and their descendants.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

/// How often new processes are looked for; between, only known ones are read.
const REFRESH: Duration = Duration::from_millis(500);

/// Some process groups, and whoever descends from them.
pub struct Tree {
    groups: Vec<u32>,
    members: Vec<u32>,
    refreshed: Instant,
}

/// User and system time of this process so far.
pub fn own_cpu() -> Duration {
    Stat::read("/proc/self/stat").unwrap().own
}

/// User and system time of this program's children that have ended and were waited for, so far.
pub fn ended_children_cpu() -> Duration {
    Stat::read("/proc/self/stat").unwrap().of_ended_children
}

/// Time that all cores together did not idle, by whomever, so far; on a virtual machine that includes what the host
/// gave to others meanwhile.
pub fn machine_busy() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|&field| ticks.get(field)).sum::<u64>();
    Duration::from_millis(busy * 10)
}

/// The fields of /proc/PID/stat that matter here.
struct Stat {
    name: String,
    parent: u32,
    group: u32,
    own: Duration,
    of_ended_children: Duration,
}

impl Stat {
    fn read(path: &str) -> Option<Stat> {
        let text = fs::read_to_string(path).ok()?;
        // The name is in parentheses and may hold some itself.
        let (head, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |from: usize| -> Option<Duration> {
            let ticks = fields.get(from)?.parse::<u64>().ok()? + fields.get(from + 1)?.parse::<u64>().ok()?;
            // USER_HZ is 100 on every Linux this runs on.
            Some(Duration::from_millis(ticks * 10))
        };
        Some(Stat {
            name: head.split_once('(')?.1.into(),
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            own: ticks(11)?,
            of_ended_children: ticks(13)?,
        })
    }
}

impl Tree {
    pub fn new(groups: Vec<u32>) -> Tree {
        let mut tree = Tree { groups, members: Vec::new(), refreshed: Instant::now() };
        tree.refresh();
        tree
    }

    fn refresh(&mut self) {
        self.refreshed = Instant::now();
        let mut known: HashSet<u32> = HashSet::new();
        let mut others: Vec<(u32, u32)> = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Some(stat) = Stat::read(&format!("/proc/{pid}/stat")) else { continue };
            if self.groups.contains(&stat.group) {
                known.insert(pid);
            } else {
                others.push((pid, stat.parent));
            }
        }
        // Descendants that made a group of their own.
        loop {
            let found: Vec<u32> = others
                .iter()
                .filter(|(pid, parent)| known.contains(parent) && !known.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if found.is_empty() {
                break;
            }
            known.extend(found);
        }
        self.members = known.into_iter().collect();
    }

    fn members(&mut self) -> &[u32] {
        if self.refreshed.elapsed() > REFRESH {
            self.refresh();
        }
        &self.members
    }

    /// User and system time of all, those included that ended and were waited for.
    pub fn cpu(&mut self) -> Duration {
        let stats = self.members().iter().filter_map(|pid| Stat::read(&format!("/proc/{pid}/stat")));
        stats.map(|stat| stat.own + stat.of_ended_children).sum()
    }

    /// User and system time by name of thread.
    pub fn cpu_by_thread(&mut self) -> BTreeMap<String, f64> {
        let mut times = BTreeMap::new();
        for pid in self.members().to_vec() {
            for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                if let Some(stat) = Stat::read(&entry.path().join("stat").to_string_lossy()) {
                    *times.entry(stat.name).or_default() += stat.own.as_secs_f64();
                }
            }
        }
        times
    }

    /// Sum of highest resident memories, bytes.
    pub fn peak_rss(&mut self) -> u64 {
        self.sum_of("VmHWM:")
    }

    /// Sum of resident memories now, bytes.
    pub fn rss(&mut self) -> u64 {
        self.sum_of("VmRSS:")
    }

    fn sum_of(&mut self, field: &str) -> u64 {
        self.members()
            .iter()
            .filter_map(|pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                let line = status.lines().find_map(|line| line.strip_prefix(field))?;
                Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
            })
            .sum()
    }
}
