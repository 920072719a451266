mod checker;
mod codec;
mod fence;
mod lease;
mod seen;
mod sessions;
