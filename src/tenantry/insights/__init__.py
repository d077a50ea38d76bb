"""Query insights: what queries cost by shape, and what would make them cheaper."""

from tenantry.insights.manager import Insights
from tenantry.insights.report import Finding, Report, ShapeReport
from tenantry.insights.store import INSIGHTS
from tenantry.insights.watch import Watch

__all__ = ["INSIGHTS", "Finding", "Insights", "Report", "ShapeReport", "Watch"]
