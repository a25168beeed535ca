//! Finds ONNX Runtime and opens it once per process.
//!
//! The library is not linked: a worker must start with a clear word where it is missing, and a user must be able to
//! bring a build of their own. Looked for in `ORT_DYLIB_PATH`, beside the executable, then in `.runtime/onnxruntime`
//! of the working directory and of the executable's ancestors (a checkout's own copy, `make onnxruntime`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ort::environment::Environment;
use ort::logging::LogLevel;

use super::ModelError;
use crate::log_events;

const LIBRARY: &str = "libonnxruntime.so";

/// The process's ONNX Runtime; opened at the first call.
pub fn environment() -> Result<&'static Environment, ModelError> {
    static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
    let outcome = ENVIRONMENT.get_or_init(|| {
        let path = find_library()?;
        let opened = ort::init_from(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let built = opened.with_name("fraud-scorer").with_logger(Arc::new(tell)).build();
        let environment = built.map_err(|error| format!("{}: {error}", path.display()))?;
        environment.set_log_level(LogLevel::Warning);
        Ok(environment)
    });
    outcome.as_ref().map_err(|reason| ModelError::Runtime { reason: reason.clone() })
}

/// Longest line of ONNX Runtime's that is passed on, characters: names in a graph are as long as somebody wants.
const MOST_SAID: usize = 1000;

/// Its lines would otherwise go to standard error as they are, coloured, between our JSON.
fn tell(level: LogLevel, _category: &str, _id: &str, _place: &str, line: &str) {
    let reason: String = line.trim().chars().take(MOST_SAID).collect();
    match level {
        LogLevel::Error | LogLevel::Fatal => log_events::model::OnnxRuntimeError { reason: &reason }.log(),
        LogLevel::Warning => log_events::model::OnnxRuntimeLine { reason: &reason }.log(),
        LogLevel::Verbose | LogLevel::Info => {}
    }
}

/// What ONNX Runtime says, without the place in its source and the C++ signature that it begins with:
/// `/onnxruntime_src/core/graph/model.cc:181 onnxruntime::Model::Model(ModelProto&&, …) Unsupported …`.
pub fn plain(message: &str) -> String {
    let message = message.trim();
    let place = [".cc:", ".h:", ".hpp:"].iter().filter_map(|end| message.find(end)).min();
    let Some(place) = place else { return message.to_owned() };
    let begin = message[..place].rfind(char::is_whitespace).map_or(0, |space| space + 1);
    let (before, rest) = (&message[..begin], &message[begin..]);
    let said = behind_signature(rest).trim();
    // A form that is not known is better whole than gone.
    if said.is_empty() { message.to_owned() } else { format!("{before}{said}") }
}

/// What stands behind `file.cc:1 type name(arguments) const [with T = …]`.
fn behind_signature(text: &str) -> &str {
    let Some(mut rest) = text.split_once(' ').map(|(_, rest)| rest) else { return "" };
    let Some(open) = rest.find('(') else { return rest };
    rest = &rest[open..];
    loop {
        let (close, skip) = match rest.as_bytes().first() {
            Some(b'(') => (b')', b'('),
            Some(b'[') => (b']', b'['),
            _ => return rest,
        };
        let mut depth = 0_usize;
        let end = rest.bytes().position(|byte| {
            depth = if byte == skip { depth + 1 } else { depth - usize::from(byte == close) };
            depth == 0
        });
        let Some(end) = end else { return rest };
        rest = rest[end + 1..].trim_start();
        rest = rest.strip_prefix("const ").unwrap_or(rest);
        // A lambda has its call behind: `::<lambda(int)>::operator()(int)`.
        if rest.starts_with('>') || rest.starts_with("::") {
            let Some(open) = rest.find('(') else { return rest };
            rest = &rest[open..];
        }
    }
}

/// Where ONNX Runtime lies, or the list of places without it.
pub fn find_library() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!("ORT_DYLIB_PATH={} is no file", path.display())),
        };
    }
    let executable = std::env::current_exe().ok();
    let candidates = candidates(executable.as_deref(), std::env::current_dir().ok().as_deref());
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let places: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!("looked for {}", places.join(", "))
    })
}

fn candidates(executable: Option<&Path>, working_directory: Option<&Path>) -> Vec<PathBuf> {
    let beside = executable.and_then(Path::parent);
    let checkout = |folder: &Path| folder.join(".runtime/onnxruntime").join(LIBRARY);
    let mut places: Vec<PathBuf> = beside.map(|folder| folder.join(LIBRARY)).into_iter().collect();
    places.extend(working_directory.map(checkout));
    // target/release/fraud-scorer and target/debug/deps/test-… lie two and three levels below the checkout.
    places.extend(beside.into_iter().flat_map(Path::ancestors).skip(2).take(2).map(checkout));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_of_the_source_are_left_out() {
        for (said, plainly) in [
            (
                "Load model from memory failed: /onnxruntime_src/onnxruntime/core/graph/model.cc:181 \
                 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::logging::Logger&) Unsupported model \
                 IR version: 14, max supported IR version: 13\n",
                "Load model from memory failed: Unsupported model IR version: 14, max supported IR version: 13",
            ),
            (
                "/src/tree_ensemble_common.h:357 onnxruntime::common::Status onnxruntime::ml::detail::TreeEnsembleCommon\
                 <InputType, ThresholdType>::Init(int, const Names&) [with InputType = float; Names = std::vector<int>] \
                 base_values.size() == 0 was false. base_values should have 0, 1, or 2 values (found 10)",
                "base_values.size() == 0 was false. base_values should have 0, 1, or 2 values (found 10)",
            ),
            (
                "/src/session.cc:12 onnxruntime::Load(int)::<lambda(const Path&)>::operator()(const Path&) const no such node",
                "no such node",
            ),
            ("This is an invalid model. Error: Field 'shape'", "This is an invalid model. Error: Field 'shape'"),
            ("/src/a.cc:1 name(unfinished", "(unfinished"),
            ("/src/a.cc:1 name()", "/src/a.cc:1 name()"),
        ] {
            assert_eq!(plain(said), plainly);
        }
    }

    #[test]
    fn the_place_beside_the_executable_comes_first() {
        let places = candidates(Some(Path::new("/a/target/release/fraud-scorer")), Some(Path::new("/b")));
        assert_eq!(places[0], Path::new("/a/target/release/libonnxruntime.so"));
        assert_eq!(places[1], Path::new("/b/.runtime/onnxruntime/libonnxruntime.so"));
        assert_eq!(places[2], Path::new("/a/.runtime/onnxruntime/libonnxruntime.so"));
    }
}
