//! The shared files of AWS's own tools: `~/.aws/credentials` and `~/.aws/config`, which object_store does not read.
//!
//! Format and precedence: AWS SDKs and Tools Reference Guide, "Shared config and credentials files".

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The keys of one profile.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Profile(BTreeMap<String, String>);

/// Keys that name a source of credentials which is not supported here.
const UNSUPPORTED: [&str; 4] = ["role_arn", "credential_process", "sso_session", "sso_start_url"];

impl Profile {
    /// The profile that the environment names, `default` if it names none.
    pub(crate) fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let folder = variable("HOME").map(|home| PathBuf::from(home).join(".aws"));
        let read = |name: &str, file: &str| {
            let path = variable(name).map(PathBuf::from).or_else(|| Some(folder.as_ref()?.join(file)));
            path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
        };
        let profile = variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE"));
        let credentials = read("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let config = read("AWS_CONFIG_FILE", "config");
        Self::of(&credentials, &config, profile.as_deref().unwrap_or("default"))
    }

    /// The profile `name` in the text of both files; what is in both is taken from `credentials`.
    fn of(credentials: &str, config: &str, name: &str) -> Self {
        let mut keys = section(config, |title| {
            title == name && name == "default"
                || title.strip_prefix("profile").is_some_and(|rest| rest.trim_start() == name && rest != name)
        });
        keys.extend(section(credentials, |title| title == name));
        Self(keys)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The key that names a source of credentials which this crate does not know, if the profile has no others.
    pub(crate) fn unsupported(&self) -> Option<&'static str> {
        let has_keys = self.get("aws_access_key_id").is_some();
        UNSUPPORTED.into_iter().find(|key| !has_keys && self.get(key).is_some())
    }
}

/// The keys of the sections whose title `is_wanted`.
fn section(text: &str, is_wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let (mut keys, mut inside) = (BTreeMap::new(), false);
    for line in text.lines() {
        // Indented lines are nested settings of the key above.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(title) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = is_wanted(title.trim());
        } else if let (true, Some((key, value))) = (inside, line.split_once('=')) {
            keys.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "[default]\naws_access_key_id = A\naws_secret_access_key=S=/+\n\n# [work]\n[work]\n\
        aws_access_key_id=W\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\naws_access_key_id = ignored\n[profile work]\n\
        endpoint_url = http://127.0.0.1:1\ns3 =\n  addressing_style = path\n[profile role]\nrole_arn = arn:1\n[work]\nregion=no\n";

    #[test]
    fn a_profile_is_in_two_files() {
        let default = Profile::of(CREDENTIALS, CONFIG, "default");
        assert_eq!(default.get("aws_access_key_id"), Some("A"));
        assert_eq!(default.get("aws_secret_access_key"), Some("S=/+"));
        assert_eq!((default.get("region"), default.unsupported()), (Some("eu-west-1"), None));
        let work = Profile::of(CREDENTIALS, CONFIG, "work");
        assert_eq!(work.get("aws_access_key_id"), Some("W"));
        assert_eq!((work.get("endpoint_url"), work.get("region")), (Some("http://127.0.0.1:1"), None));
        assert_eq!(work.get("addressing_style"), None);
    }

    #[test]
    fn a_source_that_is_not_supported_is_named() {
        assert_eq!(Profile::of(CREDENTIALS, CONFIG, "role").unsupported(), Some("role_arn"));
        assert_eq!(Profile::of("", "", "none"), Profile::default());
    }
}
