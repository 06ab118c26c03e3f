//! The position of a Subscription in the tree: eight bytes that its Session stores instead of a copy of its Topic
//! Filter.

use crate::topic::bucket_table::{Hashed, ShortHash};

/// Identifies a Topic Filter in the tree as long as it is subscribed to; later it may identify another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriptionPlace {
    pub(super) node: u32,
    pub(super) shard: u8,
    pub(super) ending: Ending,
}

/// Which of the two sets of a node: how a filter ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ending {
    /// With the level of the node.
    Exact,
    /// With `#` behind it.
    Multi,
}

impl Hashed for SubscriptionPlace {
    /// The numbers are ours, not the Client's, so one multiplication distributes them well enough.
    fn hash(&self) -> ShortHash {
        let [shard, ending] = [u64::from(self.shard), u64::from(self.ending == Ending::Multi)];
        let key = u64::from(self.node) | shard << 32 | ending << 40;
        ShortHash::of(key.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}
