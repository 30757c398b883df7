//! Parquet files as rows of JSON.

use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::Value;
use wsd_core::{Input, guard};
use wsd_eval::{Row, SourceError};

/// The first bytes of a Parquet file.
pub(crate) const MAGIC: &[u8] = b"PAR1";

/// Reads all rows. The line of a row is its number, from 1.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>, SourceError> {
    // The reader may panic on a damaged file.
    guard(|| read_rows(path)).unwrap_or_else(|message| {
        Err(SourceError::File { path: path.into(), message: format!("not a readable Parquet file: {message}") })
    })
}

fn read_rows(path: &Path) -> Result<Vec<Row>, SourceError> {
    let fault = |error: ParquetError| SourceError::File {
        path: path.into(),
        message: format!("not a readable Parquet file: {error}"),
    };
    let file = Input::ROWS.open(path)?.into_file();
    let reader = SerializedFileReader::new(file).map_err(fault)?;
    let rows = reader.get_row_iter(None).map_err(fault)?;
    let row = |(index, row): (usize, Result<parquet::record::Row, ParquetError>)| {
        let Value::Object(fields) = row.map_err(fault)?.to_json_value() else { return Ok(None) };
        Ok(Some(Row::new(path, index + 1, fields)))
    };
    rows.enumerate().filter_map(|row_of| row(row_of).transpose()).collect()
}
