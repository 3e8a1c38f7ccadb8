"""A fitted model as one page to read and to send."""

from latentrnn.pages.report import report as report
