//! The owner of a Session: nobody else may resume, read or end it.

use std::sync::Arc;

/// Separates the two parts in a record. User names cannot contain it. [MQTT-1.5.4-2]
const SEPARATOR: char = '\0';

/// The user who created a Session, and the mount point; nothing for an anonymous one without a mount point, because then
/// most Sessions of a broker are alike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SessionOwner(Option<Box<Named>>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Named {
    /// Verified user name; `None` is anonymous, which is a user like any other.
    user_name: Option<Arc<str>>,
    /// Mount point of the listener, empty without one, because topics have another meaning under another mount point.
    /// `None` in records of older versions, which match any mount point.
    mount_point: Option<Arc<str>>,
}

impl SessionOwner {
    /// A user on a listener with this mount point.
    #[must_use]
    pub(crate) fn new(user_name: Option<Arc<str>>, mount_point: Option<Arc<str>>) -> Self {
        let is_named = user_name.is_some() || mount_point.is_some();
        let mount_point = Some(mount_point.unwrap_or_default());
        Self(is_named.then(|| Box::new(Named { user_name, mount_point })))
    }

    /// Whether `other` may use the Sessions of this owner.
    #[must_use]
    pub(crate) fn admits(&self, other: &Self) -> bool {
        let is_same_mount = match (self.mount_point(), other.mount_point()) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (None, _) | (_, None) => true,
        };
        self.user_name() == other.user_name() && is_same_mount
    }

    /// The form in the record of a Session, where older versions have only the user name.
    #[must_use]
    pub(crate) fn to_record(&self) -> Option<Arc<str>> {
        match self.mount_point() {
            Some(mount_point) => {
                let user_name = self.user_name().map_or("", |name| name);
                Some(format!("{user_name}{SEPARATOR}{mount_point}").into())
            }
            None => self.user_name().cloned(),
        }
    }

    /// Reads what [`Self::to_record`] wrote, or an older version.
    #[must_use]
    pub(crate) fn from_record(record: Option<&Arc<str>>) -> Self {
        match record.map(|record| record.split_once(SEPARATOR)) {
            Some(Some((user_name, mount_point))) => Self::new(
                (!user_name.is_empty()).then(|| user_name.into()),
                (!mount_point.is_empty()).then(|| mount_point.into()),
            ),
            Some(None) | None => {
                let user_name = record.cloned();
                Self(Some(Box::new(Named { user_name, mount_point: None })))
            }
        }
    }

    /// Verified user name; `None` is anonymous.
    #[must_use]
    pub(crate) fn user_name(&self) -> Option<&Arc<str>> {
        self.0.as_ref()?.user_name.as_ref()
    }

    fn mount_point(&self) -> Option<&str> {
        match &self.0 {
            Some(named) => named.mount_point.as_deref(),
            None => Some(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(user_name: Option<&str>, mount_point: Option<&str>) -> SessionOwner {
        SessionOwner::new(user_name.map(Into::into), mount_point.map(Into::into))
    }

    #[test]
    fn an_owner_admits_itself_alone() {
        let all = [
            owner(None, None),
            owner(None, Some("site-1/")),
            owner(Some("a"), None),
            owner(Some("a"), Some("site-1/")),
            owner(Some("a"), Some("site-2/")),
            owner(Some("b"), None),
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(&SessionOwner::from_record(one.to_record().as_ref()), one);
            for (other_index, other) in all.iter().enumerate() {
                assert_eq!(one.admits(other), index == other_index, "{one:?} {other:?}");
            }
        }
    }

    /// They contain the user but not the mount point.
    #[test]
    fn records_of_older_versions_keep_their_user() {
        let anonymous = SessionOwner::from_record(None);
        let named = SessionOwner::from_record(Some(&"a".into()));
        for mount_point in [None, Some("site-1/")] {
            assert!(anonymous.admits(&owner(None, mount_point)));
            assert!(!anonymous.admits(&owner(Some("a"), mount_point)));
            assert!(named.admits(&owner(Some("a"), mount_point)));
            assert!(!named.admits(&owner(None, mount_point)));
            assert!(!named.admits(&owner(Some("b"), mount_point)));
        }
    }
}
