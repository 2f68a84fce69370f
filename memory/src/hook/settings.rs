//! The settings file of Claude Code: our hooks go in beside others, and out again.
//! Knows its JSON; what cannot be read is left as it is.

use std::path::Path;

use serde_json::{Map, json};

use crate::codec::Json;
use crate::error::{Error, Result};
use crate::recall::files;

/// The program's name, by which its entries are known.
const PROGRAM: &str = "terrace-memory";
/// Events, and how the program is called for them.
const HOOKS: &[(&str, &str)] = &[("UserPromptSubmit", "hook user-prompt"), ("Stop", "hook stop")];
/// Seconds a hook may take.
const TIMEOUT_S: u64 = 5;

/// What became of the settings file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was written; what it was before stands beside it as `NAME.bak`.
    Written,
    /// It was so already.
    Unchanged,
}

/// Enters the hooks, called with the program's absolute path. Entries of others stay; ours are
/// brought up to date. Members of objects are written in alphabetical order.
///
/// Errors: [`Error::Codec`] when the file is no JSON object of the known form; it stays as it is.
/// [`Error::Invalid`] for a path that is not absolute.
pub fn install(settings: &Path, program: &Path) -> Result<Change> {
    if !program.is_absolute() {
        return Err(Error::Invalid("hooks are called in any directory: the path is absolute"));
    }
    let program = program.to_str().ok_or(Error::Invalid("a path that is not text"))?;
    if program.contains(['"', '\\', '$', '`', '\n']) {
        return Err(Error::Invalid("a path that a shell would read otherwise"));
    }
    change(settings, |root| {
        remove(root)?;
        for (event, call) in HOOKS {
            let hooks = object(root, "hooks")?;
            let list = hooks.entry((*event).to_owned()).or_insert_with(|| json!([]));
            let list = list.as_array_mut().ok_or_else(|| form(event))?;
            let command = format!("\"{program}\" {call}");
            let hook = json!({ "type": "command", "command": command, "timeout": TIMEOUT_S });
            list.push(json!({ "hooks": [hook] }));
        }
        Ok(())
    })
}

/// Takes our entries out again; what is empty then goes too.
pub fn uninstall(settings: &Path) -> Result<Change> {
    if files::stamp(settings)?.is_none() {
        return Ok(Change::Unchanged);
    }
    change(settings, remove)
}

fn change(
    settings: &Path,
    edit: impl FnOnce(&mut Map<String, Json>) -> Result<()>,
) -> Result<Change> {
    let text = files::read(settings)?.filter(|text| !text.trim().is_empty());
    let codec = |error: serde_json::Error| Error::Codec(error.to_string());
    let old: Json = match &text {
        Some(text) => serde_json::from_str(text).map_err(codec)?,
        None => json!({}),
    };
    let Json::Object(mut root) = old.clone() else { return Err(form("the file")) };
    edit(&mut root)?;
    let new = Json::Object(root);
    if new == old && text.is_some() {
        return Ok(Change::Unchanged);
    }
    files::back_up(settings)?;
    let mut out = serde_json::to_string_pretty(&new).map_err(codec)?;
    out.push('\n');
    files::write_whole(settings, &out)?;
    Ok(Change::Written)
}

fn form(what: &str) -> Error {
    Error::Codec(format!("settings: {what} has not the known form"))
}

fn object<'m>(root: &'m mut Map<String, Json>, name: &str) -> Result<&'m mut Map<String, Json>> {
    let value = root.entry(name.to_owned()).or_insert_with(|| json!({}));
    value.as_object_mut().ok_or_else(|| form(name))
}

fn is_ours(hook: &Json) -> bool {
    let command = hook.get("command").and_then(Json::as_str).unwrap_or("");
    command.contains(PROGRAM) && HOOKS.iter().any(|(_, call)| command.ends_with(call))
}

fn remove(root: &mut Map<String, Json>) -> Result<()> {
    if !root.contains_key("hooks") {
        return Ok(());
    }
    let hooks = object(root, "hooks")?;
    for (event, _) in HOOKS {
        let Some(list) = hooks.get_mut(*event) else { continue };
        let list = list.as_array_mut().ok_or_else(|| form(event))?;
        let mut emptied = false;
        for group in list.iter_mut() {
            let Some(inner) = group.get_mut("hooks").and_then(Json::as_array_mut) else { continue };
            let before = inner.len();
            inner.retain(|hook| !is_ours(hook));
            emptied |= inner.len() < before;
        }
        let is_empty =
            |group: &Json| group.get("hooks").and_then(Json::as_array).is_some_and(Vec::is_empty);
        list.retain(|group| !is_empty(group));
        if emptied && list.is_empty() {
            hooks.remove(*event);
        }
    }
    if hooks.is_empty() {
        root.remove("hooks");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = concat!(
        r#"{"model":"x","hooks":{"Stop":[{"hooks":["#,
        r#"{"type":"command","command":"other hook stop"}]}]}}"#
    );

    fn read(path: &Path) -> Json {
        serde_json::from_str(&files::read(path).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn hooks_go_in_beside_others_once_and_out_without_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".claude/settings.json");
        files::write_whole(&path, OTHER).unwrap();
        let program = Path::new("/opt/a b/terrace-memory");
        assert_eq!(install(&path, program).unwrap(), Change::Written);
        let new = read(&path);
        assert_eq!(new["hooks"]["Stop"].as_array().unwrap().len(), 2);
        let ours = &new["hooks"]["UserPromptSubmit"][0]["hooks"][0];
        assert_eq!(ours["command"], "\"/opt/a b/terrace-memory\" hook user-prompt");
        assert!(new["hooks"]["UserPromptSubmit"][0].get("matcher").is_none());
        assert_eq!(files::read(&path.with_file_name("settings.json.bak")).unwrap().unwrap(), OTHER);
        assert_eq!(install(&path, program).unwrap(), Change::Unchanged);
        // From another place: the old entries go.
        install(&path, Path::new("/opt/terrace-memory")).unwrap();
        assert_eq!(read(&path)["hooks"]["Stop"].as_array().unwrap().len(), 2);
        assert_eq!(uninstall(&path).unwrap(), Change::Written);
        assert_eq!(read(&path), serde_json::from_str::<Json>(OTHER).unwrap());
        assert_eq!(uninstall(&path).unwrap(), Change::Unchanged);
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.json");
        let program = Path::new("/opt/terrace-memory");
        for text in ["{", "[]", "{\"hooks\":[]}", "{\"hooks\":{\"Stop\":{}}}"] {
            files::write_whole(&path, text).unwrap();
            assert!(matches!(install(&path, program), Err(Error::Codec(_))), "{text}");
            assert_eq!(files::read(&path).unwrap().unwrap(), text);
        }
        assert!(matches!(install(&path, Path::new("a/b")), Err(Error::Invalid(_))));
        let odd = Path::new("/opt/$(x)/terrace-memory");
        assert!(matches!(install(&path, odd), Err(Error::Invalid(_))));
        files::write_whole(&path, "").unwrap();
        assert_eq!(install(&path, program).unwrap(), Change::Written);
    }
}
