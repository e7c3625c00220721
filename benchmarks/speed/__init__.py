"""Speed of the strategies: each module exports `rows()`, its figures one by one."""
