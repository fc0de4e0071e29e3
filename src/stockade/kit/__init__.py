"""What every service is built from: configuration, database, HTTP application, authentication, calls and events.

The kit owns no data of the business and imports no service. Something enters it only when two services need it.
"""
