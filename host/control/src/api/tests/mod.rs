mod documents;
mod matrix;
