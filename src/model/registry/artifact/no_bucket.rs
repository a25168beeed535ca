//! What stands for a bucket in a build without the feature `archive`: none is ever opened.

use super::{Entry, Sink, Trouble};

pub(super) enum Bucket {}

impl Bucket {
    pub(super) fn open(_: &str, _: Vec<String>) -> Result<Bucket, Trouble> {
        Err(Trouble::Unfit(fraud_storage::ABSENT.to_owned()))
    }

    pub(super) async fn list(&self, _: &[String]) -> Result<Vec<Entry>, Trouble> {
        match *self {}
    }

    pub(super) async fn read(&self, _: &[String], _: &mut Sink<'_>) -> Result<(), Trouble> {
        match *self {}
    }
}
