"""The commands `vtabflow data plan` and `vtabflow data audit`."""
