"""From tables with named columns, as CSV files and spreadsheets hold them, to arrays."""

from latentrnn.data.ingest.tables.dataset import read_dataset as read_dataset
from latentrnn.data.ingest.tables.recording import read_recording as read_recording
from latentrnn.data.ingest.tables.table import FromTable as FromTable
from latentrnn.data.ingest.tables.table import read_table as read_table
