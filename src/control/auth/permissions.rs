//! Whether a permission is one for what is asked.

use super::Question;
use crate::control::settings::{Action, PathScope, Permission};

pub(super) fn permit(permissions: &[Permission], question: &Question) -> bool {
    permissions
        .iter()
        .any(|permission| permission.action == question.action && covers(&permission.path, question))
}

fn covers(scope: &PathScope, question: &Question) -> bool {
    !is_about_paths(question.action)
        || match scope {
            PathScope::Any => true,
            PathScope::Exact(path) => *path == question.path,
            PathScope::Pattern(pattern) => pattern.is_match(&question.path),
            PathScope::Entries(keys) => question.entry.as_ref().is_some_and(|entry| keys.contains(entry)),
        }
}

pub(super) fn is_about_paths(action: Action) -> bool {
    matches!(action, Action::Publish | Action::Read | Action::Playback)
}
