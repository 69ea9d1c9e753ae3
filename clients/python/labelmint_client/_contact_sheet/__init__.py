"""A picture of many samples with all their labels, to be shown."""

from labelmint_client._contact_sheet.sheet import SheetTitle, render_contact_sheet

__all__ = ["SheetTitle", "render_contact_sheet"]
