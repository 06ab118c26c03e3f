//! Topic Names, Topic Filters, the matching tree of Subscriptions and the tree of Retained
//! Messages.
//!
//! The two trees answer mirrored questions: which Subscriptions match a Topic Name, and which Topic
//! Names match a Topic Filter. Both are shared by all tasks and lock inside, never longer than a
//! few microseconds.

mod arena;
pub(crate) mod bucket_table;
mod chunks;
mod index_table;
mod level_text;
mod subscriber_set;
mod subscription_branch;
mod wildcard_placements;

pub mod filter;
pub mod fingerprint;
pub(crate) mod mount_point;
pub mod name;
pub(crate) mod reserved;
pub mod retained_tree;
pub(crate) mod subscription_place;
pub mod subscription_tree;
